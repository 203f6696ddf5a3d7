"""Regression with a sum of kernels, each on another view of the rows."""
