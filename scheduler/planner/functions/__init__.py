"""Functions for applications: grouping, tier, batch size and timeouts of each shared buffer at the least cost.

May import catalogue and queueing.
"""
