"""What costs can be reached at most: the limit of who knows every arrival, that of a causal policy, and lookahead."""
