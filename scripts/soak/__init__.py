"""Random worlds for the whole daemon in virtual time: faults of every kind, promises that are checked at each step."""
