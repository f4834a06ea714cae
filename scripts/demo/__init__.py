"""`make demo`: the main job, end to end, on one machine, in real processes. May import everything but the engine."""
