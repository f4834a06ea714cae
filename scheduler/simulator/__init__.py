"""The virtual shell: drives the daemon's engine through simulated time, against simulated backends and uplink."""
