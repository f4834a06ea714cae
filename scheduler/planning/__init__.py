"""Planning by command: reads applications and profiles, plans, shows the plan.

Imports domain, planner, workloads and `models.profile`; no engine and no shell.
"""
