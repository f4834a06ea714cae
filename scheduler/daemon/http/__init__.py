"""The HTTP side: requests in, answers out, admin calls, model metadata."""
