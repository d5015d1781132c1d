"""What the Makefile runs besides the tests and the benchmarks."""
