"""The plan of one host: edge batches, function buffers, their tiers and margins, from a snapshot of estimates."""
