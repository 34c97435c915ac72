"""Optional capabilities on top of log, bus and flow. Each has the shape that ``contract.py`` names; none imports another."""
