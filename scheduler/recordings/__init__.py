"""Arrivals that really came: the form of recordings, and the readers of recordings and of other programs' traces."""
