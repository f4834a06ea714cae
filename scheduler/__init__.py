"""The client host: batches requests and splits them between an edge server and serverless functions."""
