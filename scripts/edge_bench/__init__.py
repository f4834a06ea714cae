"""Measurements of edge servers that the script starts itself: against a bare loop, and beside a loaded neighbour."""
