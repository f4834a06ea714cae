"""Evaluation: policies x workloads x networks x faults in the simulator, as CSV, Markdown and plots. See `command`."""
