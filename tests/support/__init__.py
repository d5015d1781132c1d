"""What tests and benchmarks share: the table of losses, exact results, comparisons, layouts and marks."""
