"""Offered resources and their speed: price sheets, function configurations, latency models, profiles.

May import queueing.
"""
