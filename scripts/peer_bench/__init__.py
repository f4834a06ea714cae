"""Servers of others with dynamic batching before the same stub model as the daemon's, for `scripts.bench_peers`."""
