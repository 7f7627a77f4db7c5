"""What the numbers of a study show: the verdict on its winner, confidence intervals, importances, and its pace."""
