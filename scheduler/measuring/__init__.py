"""Measurements from outside: replays of arrivals against a daemon, and profiles of an edge server or a function.

Imports domain, the wire format, workloads, the provider's client and `models.profile`; neither daemon nor engine, which
it measures.
"""
