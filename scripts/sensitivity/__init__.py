"""Sensitivity of cost and lateness to the tuning constants: each is halved and doubled. See `__main__`."""
