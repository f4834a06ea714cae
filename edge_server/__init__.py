"""The edge device's server: Open Inference Protocol v2 over HTTP, one device, one batch at a time.

Of this project it imports only `models` and the wire format `scheduler.wire`.
"""
