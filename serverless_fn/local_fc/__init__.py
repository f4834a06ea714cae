"""A local Function Compute endpoint: it serves the unmodified SDK, runs functions as processes, and meters cost.

It imports nothing of the scheduler, but reads its price sheets, which are data.
"""
