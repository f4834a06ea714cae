"""Reads protobuf's text format without its description: Triton's config.pbtxt, as nested lists of fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from models.authoring.draft import AuthoringError

Message = dict[str, list[Any]]
"""By field: its values in the order of the file; a value is a text, a number, a bool, or a message."""

# https://protobuf.dev/reference/protobuf/textformat-spec
_TOKEN = re.compile(
    r"""\s+|\#[^\n]*|(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')|(?P<word>[-+.\w/]+)|(?P<mark>[{}<>\[\]:,;])""",
    re.DOTALL,
)
_MAX_DEPTH = 50


def parse_text_format(text: str) -> Message:
    """Returns the fields of a document.

    Raises:
        AuthoringError: it is not text format; the message names the line.

    >>> parse_text_format('name: "m" input [ { dims: [ 3, -1 ] } ]')
    {'name': ['m'], 'input': [{'dims': [3, -1]}]}
    """
    tokens = _Tokens(text)
    message = _message(tokens, end="", depth=0)
    return message


class _Tokens:
    """The tokens of a text, with the line of the latest one."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._found = self._all()
        self._next: tuple[str, str] | None = None
        self.line = 1

    def peek(self) -> tuple[str, str]:
        """Returns the next token, its kind and its text; kind and text "" at the end."""
        if self._next is None:
            self._next = next(self._found, ("", ""))
        return self._next

    def take(self) -> tuple[str, str]:
        token, self._next = self.peek(), None
        return token

    def wrong(self, sentence: str) -> AuthoringError:
        return AuthoringError(f"line {self.line}: {sentence}")

    def _all(self) -> Iterator[tuple[str, str]]:
        at = 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            self.line = self._text.count("\n", 0, at) + 1
            if match is None:
                raise self.wrong(f"{self._text[at : at + 20]!r} is not protobuf's text format")
            at = match.end()
            if match.lastgroup is not None:
                yield match.lastgroup, match[0]


def _message(tokens: _Tokens, *, end: str, depth: int) -> Message:
    if depth > _MAX_DEPTH:
        raise tokens.wrong("the messages are nested too deeply")
    fields: Message = {}
    while True:
        kind, token = tokens.take()
        if (kind, token) == ("mark", end) or (kind == "" and end == ""):
            return fields
        if kind == "mark" and token in ",;":
            continue
        if kind != "word":
            raise tokens.wrong(f"{token or 'the end of the file'!r} stands where a field's name should")
        fields.setdefault(token, []).extend(_values(tokens, depth))


def _values(tokens: _Tokens, depth: int) -> list[Any]:
    colon = tokens.peek() == ("mark", ":")
    if colon:
        tokens.take()
    if tokens.peek() != ("mark", "["):
        return [_value(tokens, depth, colon=colon)]
    tokens.take()
    values: list[Any] = []
    while tokens.peek() != ("mark", "]"):
        if tokens.peek() == ("mark", ","):
            tokens.take()
            continue
        values.append(_value(tokens, depth, colon=colon))
    tokens.take()
    return values


def _value(tokens: _Tokens, depth: int, *, colon: bool) -> Any:
    kind, token = tokens.take()
    if kind == "mark" and token in "{<":
        return _message(tokens, end="}" if token == "{" else ">", depth=depth + 1)
    if kind == "text":
        parts = [_unquoted(token)]
        while tokens.peek()[0] == "text":  # texts that follow one another are one
            parts.append(_unquoted(tokens.take()[1]))
        return "".join(parts)
    if kind != "word" or not colon:
        raise tokens.wrong(f"{token or 'the end of the file'!r} stands where a value should")
    return _scalar(token)


def _unquoted(token: str) -> str:
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "t": "\t", "r": "\r"}.get(match[1], match[1]), token[1:-1])


def _scalar(token: str) -> Any:
    if token in ("true", "True"):
        return True
    if token in ("false", "False"):
        return False
    for read in (int, float):
        try:
            return read(token)
        except ValueError:
            continue
    return token
