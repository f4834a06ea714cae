"""The function container of Function Compute; knows of the scheduler only the wire format."""
