"""The error of the wire format."""


class WireError(ValueError):
    """A body that violates the protocol; its message is one sentence for the client (HTTP 400), with no period."""


def shown(name: str) -> str:
    """Returns a client's text, quoted, escaped and of bounded length."""
    quoted = repr(name[:80])
    return quoted if len(quoted) <= 80 else quoted[:77] + "..."
