"""Policies in use today, one in each file, for comparison with the engine on the same simulated backends."""
