"""`make demo`: the whole system on one machine, in real processes. May import everything except the engine."""
