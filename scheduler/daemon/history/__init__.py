"""What the daemon did, second by second: counted, kept for a week, told to the page at `/`.

Counting, rings and columns are pure: times and figures come in as arguments. Only `file` and `keeper` know the disk,
and only `feed` the clock. Imports nothing of `http/` and `grpc/`.
"""
