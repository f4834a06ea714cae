"""What cost can be reached at best: with every arrival known, by a causal policy, and with a second of lookahead."""
