"""The second demo: an edge killed, an uplink cut, a cap reached and a tenant's flood, each seen on the page."""
