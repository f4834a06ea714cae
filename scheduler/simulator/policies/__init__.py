"""Policies that people use today, one a file, against the same simulated backends as the engine; and their choice."""
