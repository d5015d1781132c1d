"""The benchmark, the counts of instructions and the sweep, as instruments."""
