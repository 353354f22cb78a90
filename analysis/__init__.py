"""Holds the numbers against the predictions: frame -> fit -> claims -> figures -> report."""
