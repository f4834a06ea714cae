"""The function container for Function Compute; of the scheduler it imports only the wire format."""
