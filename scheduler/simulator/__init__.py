"""Simulator: runs the daemon's engine in virtual time against simulated backends and a simulated uplink."""
