"""Planning by hand: reads applications and profiles, asks the planner, shows it. Imports planner and workloads."""
