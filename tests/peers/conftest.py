"""These tests need the environment of `make test-peers`; without it none of them is collected."""

import os

PEERS = "EDGEBURST_PEERS"
"""Names the Python of that environment."""

collect_ignore_glob = ["servers/*", "clients/*", "checks/*"] if PEERS in os.environ else ["*"]
