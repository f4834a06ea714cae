"""A profile as tables and sentences on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.profile import Profile
from scheduler.measuring.profiling import (
    AT_ONCE_COLUMNS,
    COLUMNS,
    at_once_rows,
    model_sentence,
    parallel_sentence,
    table_rows,
)


def print_profile(profile: Profile, *, partial: str = "") -> None:
    """Prints a profile.

    Args:
        profile: what was measured.
        partial: what it lacks; empty if it is whole.
    """
    title = f"{profile.model} on {profile.device}"
    table = Table(title=escape(f"PARTIAL, {partial}: {title}" if partial else title), title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for row in table_rows(profile):
        table.add_row(*row)
    console = Console(highlight=False)
    console.print(table)
    console.print(escape(model_sentence(profile)))
    if profile.at_once:
        several = Table(title="several batches at once", title_justify="left")
        for column in AT_ONCE_COLUMNS:
            several.add_column(column, justify="right")
        for words in at_once_rows(profile):
            several.add_row(*words)
        console.print(several)
        console.print(escape(parallel_sentence(profile)))
    console.print(escape(profile.note))
    for name, value in profile.environment.items():
        console.print(escape(f"{name}: {value}"))
