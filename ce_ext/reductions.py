"""How the losses of rows become the result: the names users give, and the numbers the ops take."""

NONE, MEAN, SUM = 0, 1, 2
REDUCTIONS = {"none": NONE, "mean": MEAN, "sum": SUM}
