"""`edgeburst fc`: makes the functions that a configuration or a plan names.

It imports the daemon's configuration, but no other part of the daemon and no other shell.
"""
