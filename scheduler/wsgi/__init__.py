"""WSGI server of the edge server and the function's container: strict HTTP/1.1, a thread a connection, TLS, deadlines.

Imports the standard library only. A connection keeps its thread, so that a request costs no hand-over between threads,
and a slow client holds up none but itself; how many there may be, and which makes room, is for `places` to say.
"""
