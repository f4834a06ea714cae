"""The two ways out, edge and function: each carries one batch there and its answer back, and names what went wrong."""
