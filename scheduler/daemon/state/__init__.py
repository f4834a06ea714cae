"""What outlives the process, in one folder: leased money, what was learned, operators' limits. Imports engine, domain
and the daemon's threads and log only; stdlib sqlite3, in a thread of its own.
"""
