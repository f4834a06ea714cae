"""`edgeburst fc`: makes the functions that the configuration or a plan names. Stands on the daemon's configuration; of
the rest of the daemon and of the other shells it knows nothing.
"""
