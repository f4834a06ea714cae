"""Numerics: arrival processes and the exact distributions of batch sizes, waits and lateness of a batch buffer.

Imports no other package of the planner.
"""
