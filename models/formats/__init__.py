"""The formats of models, one module each: what it imports, it imports only when a model of it is loaded."""
