"""The data plane, pure: the virtual queue, who goes where, what the edge, the uplink and the purse will look like."""
