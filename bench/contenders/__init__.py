"""What is measured: one program each, told its task on standard input (see `bench.child`)."""
