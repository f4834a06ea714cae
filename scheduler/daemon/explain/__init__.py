"""Explanations of requests: those that the daemon keeps, the file that it writes, and `edgeburst explain`."""
