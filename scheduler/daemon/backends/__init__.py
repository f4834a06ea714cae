"""The two backends, edge server and functions: each sends a batch, and returns its answer or a failure.

Imports domain, the wire format and the provider's client; of the daemon only logs and threads.
"""
