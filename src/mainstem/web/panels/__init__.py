"""What the core itself shows: records and streams, runs, traces, and the overview of all."""
