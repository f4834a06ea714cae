"""The client host: batches requests and splits them between an edge server and serverless functions.

ARCHITECTURE.md says what each package and file is for, and what it may import.
"""
