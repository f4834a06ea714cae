"""Policies x workloads x networks x faults in the simulator: one CSV, one Markdown file, plots. See `__main__`."""
