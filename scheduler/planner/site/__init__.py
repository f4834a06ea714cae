"""The plan of one host: edge batches, function buffers, their tiers and margins, from a snapshot of estimates.

May import the other three packages of the planner.
"""
