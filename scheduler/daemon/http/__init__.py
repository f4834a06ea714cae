"""The HTTP handlers: inference requests and their answers, calls of operators, model metadata.

They reach the runner and the engine through `ingress/` only.
"""
