"""Planning by command: reads applications and profiles, plans, shows the plan. Imports planner and workloads."""
