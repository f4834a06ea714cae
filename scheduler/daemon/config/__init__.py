"""The configuration: one TOML file, read, checked and converted to settings; errors name file, line and key.

Imports domain, the planner's catalogue, planning and `models`; no other part of the daemon.
"""
