"""Compares the planner's distributions of batch sizes, waits and latencies with simulated buffers."""
