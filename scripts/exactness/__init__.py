"""Holds the batch laws of the planner against simulated buffers, with standard errors."""
