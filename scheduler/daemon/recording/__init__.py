"""[record]: the arrivals of requests, written to a folder beside the event loop."""
