"""Every contact with the operating system: disk, clock, processes, blobs. Each can be replaced by a simulated one."""
