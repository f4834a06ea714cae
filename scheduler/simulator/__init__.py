"""Simulator: runs the daemon's engine in virtual time against simulated backends and a simulated uplink.

May import everything below the shells, but no other shell.
"""
