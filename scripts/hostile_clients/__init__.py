"""One hostile client of each kind beside honest ones: how many of the honest are answered in time."""
