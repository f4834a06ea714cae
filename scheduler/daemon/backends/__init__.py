"""The two backends, edge server and functions: each sends a batch, and returns its answer or a failure."""
