"""Optional capabilities on top of log, bus and flow. Each has the shape of ``contract.py``; none imports another."""
