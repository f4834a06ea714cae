"""Measurements from outside: replays of arrivals against a daemon, and profiles of an edge server or a function.

It may import the wire format, the workloads and `models.profile`, but not the daemon or the engine, which it measures.
"""
