"""The one error of the wire format."""


class WireError(ValueError):
    """A body that breaks the protocol; its message is one sentence fit for the client (HTTP 400)."""


def shown(name: str) -> str:
    """A client's text, quoted, escaped and of bounded length."""
    quoted = repr(name[:80])
    return quoted if len(quoted) <= 80 else quoted[:77] + "..."
