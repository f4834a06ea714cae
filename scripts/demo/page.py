"""Opens the daemon's page in a person's browser, where there is one."""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Callable, Mapping


def open_page(
    url: str,
    environ: Mapping[str, str],
    *,
    open_with: Callable[[str], bool] = webbrowser.open,
    platform: str = sys.platform,
) -> str:
    """Opens the page; returns a sentence that says whether it could.

    Args:
        url: address of the page.
        environ: the environment, which says whether there is a screen.
        open_with: opens an address, and returns whether it could.
        platform: as `sys.platform`.
    """
    # Without a screen `webbrowser` may begin a browser for text in this very terminal.
    has_screen = platform in ("darwin", "win32") or any(
        environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    if not has_screen:
        return "there is no screen here: open the page from another host, or through ssh -L"
    try:
        opened = open_with(url)
    except (webbrowser.Error, OSError):
        opened = False
    return "the page is opened in the browser" if opened else "no browser could be started: open the page by hand"
