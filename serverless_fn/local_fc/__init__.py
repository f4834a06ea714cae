"""A local Function Compute endpoint: the unmodified SDK talks to it, real processes answer, money is metered.

Imports nothing of the scheduler but reads its price sheets, which are data.
"""
