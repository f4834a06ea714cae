"""WSGI servers compared under the edge server: what a batch costs in them, and what they do with hostile clients."""
