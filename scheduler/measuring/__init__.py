"""Measuring from outside: replay of arrivals against a daemon, and profiles of an edge server or a function.

May import the wire format, the workloads and `models.profile`; never the daemon or the engine, which it measures.
"""
