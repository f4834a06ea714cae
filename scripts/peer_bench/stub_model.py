"""The model that every server has: a batch of b takes STUB_ALPHA_S + STUB_BETA_S * b seconds without a processor.

It needs the standard library only: the servers run in environments of their own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

ALPHA_S = float(os.environ.get("STUB_ALPHA_S", "0"))
BETA_S = float(os.environ.get("STUB_BETA_S", "0"))
MAX_BATCH = int(os.environ.get("STUB_MAX_BATCH", "64"))
WAIT_S = float(os.environ.get("STUB_WAIT_S", "0.001"))
"""For which a server may wait for a batch to fill."""
ANSWER = b"x" * 400
"""About as long as the daemon's answer to a request of one picture."""


def predict(items: Sequence[object]) -> list[bytes]:
    """Returns the answer to each item of a batch, when its time is over."""
    time.sleep(ALPHA_S + BETA_S * len(items))
    return [ANSWER] * len(items)
