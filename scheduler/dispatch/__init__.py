"""The data plane, pure: queues, offers, batches, and the money they cost; places each request and forms each batch.

Imports scheduler.domain only.
"""
