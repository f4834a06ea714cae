"""Explanations of requests: what the daemon keeps and writes, and `edgeburst explain`."""
