"""The Open Inference Protocol v2 over gRPC: server, handlers, messages. Needs the extra `grpc`.

It reaches the daemon through `ingress/`, like `http/`, and knows nothing of that.
"""
