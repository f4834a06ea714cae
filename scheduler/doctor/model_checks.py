"""What edges and functions have in common: the card and files that they serve, their clocks, their speed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from scheduler.doctor.facts import Calls
from scheduler.doctor.rows import CLIENT, Row, Rows, finding, ok, skipped
from scheduler.doctor.wanted import WantedModel
from scheduler.domain.failures import SKEW_S, span

CARD_FILE = "model.toml"
OFF_BY = 1.5
"""Factor between a profile and real calls from which on it is measured anew. Judgement: a host that does something else
makes calls half as slow again, and twice is not noise."""
NOISE_S = 0.005
"""What any call may take longer or shorter."""
CLOCK_S = 5.0
"""Judgement: clocks that are kept differ by less; a Date says whole seconds only."""


def served_files(where: str, wanted: WantedModel, identity: str, files: Mapping[str, str], *, there: str) -> Row:
    """Returns the row of the card and files that a place serves.

    Args:
        where: the place, for the row.
        wanted: the model.
        identity: that the place reports; empty: none.
        files: SHA-256 by name, as it reports them; may be empty.
        there: what is to be done there with right files, as "copy it to the edge and restart the server".
    """
    check, name = "model", wanted.name
    if not wanted.identity:
        said = f"it serves {_short(identity)}" if identity else "neither side says what it should be"
        return skipped(where, check, f"nothing here says which card and files of {name} are expected: {said}")
    if not identity:
        return skipped(where, check, f"it does not report which card and files of {name} it serves")
    if identity == wanted.identity:
        return ok(where, check, f"card and files of {name} are the expected ones, {_short(identity)}")
    names = sorted(set(wanted.files) | set(files)) if wanted.files and files else []
    other = [each for each in names if wanted.files.get(each) != files.get(each)]
    source = f"{wanted.folder}/" if wanted.folder else ""
    if other == [CARD_FILE]:
        what, bring = f"another card ({CARD_FILE})", f"{source}{CARD_FILE}"
    elif other and CARD_FILE not in other:
        what, bring = f"other weights or files ({', '.join(other)})", ", ".join(source + each for each in other)
    else:
        what = f"another card and other files ({', '.join(other)})" if other else "another card or other files"
        bring = f"the folder {wanted.folder}" if wanted.folder else "the same card and files"
    return finding(
        where,
        check,
        f"it serves {name} with {what} than this host: {_short(identity)}, not {_short(wanted.identity)}; {there}"
        f" {bring}, or name the card that it serves in [[model]]",
    )


def _short(identity: str) -> str:
    return identity[:19] + "..." if len(identity) > 22 else identity


def speed(where: str, model: str, calls: Calls, *, predicted_s: float | None, profile: str, measure: str) -> Row:
    """Returns the row of a profile against real calls with one item.

    Args:
        where: the place.
        model: name of the model.
        calls: the real calls.
        predicted_s: what the profile predicts; None: there is no profile.
        profile: its name.
        measure: the command that measures anew, and where its result belongs.
    """
    check = "profile"
    if not calls.seconds:
        return skipped(where, check, f"no call of {model} was answered")
    took_s, count = median(calls.seconds), len(calls.seconds)
    told = f"{count} calls with one item of {model} took {_ms(took_s)} at the median"
    if predicted_s is None:
        return ok(where, check, f"{told}; the daemon measures the rest when it starts")
    off = took_s / predicted_s if predicted_s > 0 else 1.0
    if abs(took_s - predicted_s) > NOISE_S and not 1 / OFF_BY < off < OFF_BY:
        return finding(
            where,
            check,
            f"{told}, {off:.2g} times the {_ms(predicted_s)} of profile {profile}; measure it anew with `{measure}`",
        )
    return ok(where, check, f"{told}; profile {profile} says {_ms(predicted_s)}")


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"


def clock_rows(ahead_s: Mapping[str, float], *, authority: str = "") -> Rows:
    """Yields the rows of the clocks.

    Args:
        ahead_s: by place: by how much this host's clock is ahead of its.
        authority: the place whose clock is right; empty: none is known to be.
    """
    off = {place: by_s for place, by_s in ahead_s.items() if abs(by_s) > CLOCK_S}
    ours = (authority in off if authority else len(off) > 1) and len(set(map(_sign, off.values()))) == 1
    if ours:
        place = authority or min(off)
        yield finding(
            CLIENT,
            "clock",
            f"this host's clock is {_off(off[place])} that of {_the(place)}{_refusing(off[place])}; set it, as with"
            " timedatectl set-ntp true",
        )
    for place, by_s in ahead_s.items():
        if place not in off:
            yield ok(place, "clock", "its clock and this host's agree within seconds")
        elif not ours or (authority and abs(by_s - off[authority]) > CLOCK_S):
            yield finding(
                place,
                "clock",
                f"this host's clock is {_off(by_s)} that of {_the(place)}; set the one that is wrong, as with"
                " timedatectl set-ntp true there",
            )


def _sign(value: float) -> bool:
    return value > 0


def _off(by_s: float) -> str:
    return f"{span(abs(by_s))} {'ahead of' if by_s > 0 else 'behind'}"


def _the(place: str) -> str:
    return "the functions' provider" if place == "functions" else place


def _refusing(by_s: float) -> str:
    return ", which refuses calls that are signed more than 15 min off" if abs(by_s) > SKEW_S else ""
