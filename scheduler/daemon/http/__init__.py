"""The HTTP handlers: inference requests and their answers, calls of operators, model metadata."""
