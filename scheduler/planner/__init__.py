"""Pure numerics of planning, in four packages: site > functions > catalogue > queueing.

Imports scheduler.domain and numpy only.
"""
