"""The picture in a request's body, whatever curl made of it: the body itself, or a file in a form."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message

from scheduler.daemon.ingress.errors import Rejected

_FORM = "application/x-www-form-urlencoded"
"""What curl announces with --data-binary if it is told nothing else."""

_FILES = "multipart/form-data"
_BINARY = ("", "binary", "8bit", "7bit")

_BEGINNINGS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"\0\0\0\x0cjP  \r\n",
    b"\xff\x4f\xff\x51",
)
"""Of PNG, JPEG, GIF, BMP, TIFF (two), JPEG 2000 (two)."""

_HINT = "send a picture with -H 'Content-Type: image/png' or image/jpeg, or as a form with -F image=@FILE"


def check_content_type(header: str) -> None:
    """Checks, before the body is read, that a request can hold a picture.

    Args:
        header: its Content-Type; empty: none.

    Raises:
        Rejected: it names another type.
    """
    kind = _message(header).get_content_type() if header else ""
    if kind not in ("", "application/octet-stream", _FORM, _FILES) and not kind.startswith("image/"):
        raise Rejected(415, f"Content-Type is {kind[:64]!r}; {_HINT}")


def picture_of(header: str, body: bytes) -> bytes:
    """Returns the picture in a body.

    Args:
        header: the request's Content-Type; empty: none.
        body: its body, which is not empty.

    Raises:
        Rejected: the body of a form is no picture, or the form has none or several.
    """
    kind = _message(header).get_content_type() if header else ""
    if kind == _FILES:
        return _file_of(_message(header), body)
    if kind == _FORM and not looks_like_picture(body):
        if body.startswith(b"\x89PNG\x1a"):
            raise Rejected(400, "the picture has lost its line breaks, as with curl -d @FILE; use --data-binary @FILE")
        raise Rejected(415, f"Content-Type is {_FORM!r}, and the body does not begin like a picture; {_HINT}")
    return body


def looks_like_picture(body: bytes) -> bool:
    """Returns whether a body begins as pictures do; whether it is one only decoding can tell.

    >>> looks_like_picture(b"GIF89a..."), looks_like_picture(b"name=value")
    (True, False)
    """
    webp = body[:4] == b"RIFF" and body[8:12] == b"WEBP"
    # HEIC and AVIF, among others: a file of boxes.
    boxed = body[4:8] == b"ftyp"
    return webp or boxed or body.startswith(_BEGINNINGS)


def _file_of(header: Message, body: bytes) -> bytes:
    """Returns the only file of a form; without files, its only field."""
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        raise Rejected(400, "the form's Content-Type has no boundary; let the client set it, as curl -F does")
    parts = list(_parts(boundary.encode("latin-1", "replace"), body))
    files = [part for part in parts if part[0].get_filename() is not None] or parts
    if len(files) != 1:
        raise Rejected(400, f"the form has {len(files)} files; send one picture, as with curl -F image=@FILE")
    head, content = files[0]
    encoding = str(head.get("Content-Transfer-Encoding", "")).strip().lower()
    if encoding not in _BINARY:
        raise Rejected(415, f"the form's file has Content-Transfer-Encoding {encoding[:32]!r}; send it as it is")
    if not content:
        raise Rejected(400, "the form's file is empty; send a picture")
    return content


def _parts(boundary: bytes, body: bytes) -> Iterator[tuple[Message, bytes]]:
    """Yields header and content of each part of a form (RFC 2046)."""
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise Rejected(400, "the form does not end with its boundary; send it again, whole")
    for piece in pieces[1:-1]:
        padding, line, rest = piece.partition(b"\r\n")
        # A part without header begins with the empty line that would end it.
        head, end, content = (b"\r\n" + rest).partition(b"\r\n\r\n")
        if padding.strip(b" \t") or not line or not end:
            raise Rejected(400, "the form has a part without header and content; send it again, whole")
        yield _head(head), content


def _head(lines: bytes) -> Message:
    head = Message()
    for line in lines.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon and name.strip():
            head[name.strip()] = value.strip()
    return head


def _message(content_type: str) -> Message:
    message = Message()
    message["Content-Type"] = content_type
    return message
