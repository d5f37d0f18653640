"""Months of jobs in seconds: a pool of workers, simulated, that any controller can drive."""
