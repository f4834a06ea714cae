"""The picture of a request is found in whatever curl sends, or a sentence says what to send."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.filepost import encode_multipart_formdata

from scheduler.daemon.http.picture_body import check_content_type, picture_of
from scheduler.daemon.ingress.errors import Rejected

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
FORM = "application/x-www-form-urlencoded"


def form(*fields: tuple[str, str | None, bytes]) -> tuple[str, bytes]:
    """Content-Type and body of a form, as another library makes them: name, file name or None, content."""
    entries = [(name, (file, content, "image/png") if file else content.decode()) for name, file, content in fields]
    # A boundary drawn anew in each worker of pytest-xdist would give the tests unlike names.
    body, kind = encode_multipart_formdata(entries, boundary="c0ffee")  # type: ignore[arg-type]
    return kind, body


def refused(kind: str, body: bytes) -> Rejected:
    with pytest.raises(Rejected) as caught:
        picture_of(kind, body)
    return caught.value


@pytest.mark.parametrize("kind", ["", "image/png", "IMAGE/JPEG; q=1", "application/octet-stream"])
def test_a_body_that_is_announced_as_a_picture_or_not_at_all_is_the_picture(kind: str) -> None:
    check_content_type(kind)
    assert picture_of(kind, b"whatever it is") == b"whatever it is"


@pytest.mark.parametrize(
    "beginning",
    [
        PNG,
        b"\xff\xd8\xff\xe0",
        b"GIF89a",
        b"GIF87a",
        b"RIFF\x10\0\0\0WEBP",
        b"BM",
        b"II*\0",
        b"MM\0*",
        b"\0\0\0\x20ftypavif",
        b"\0\0\0\x0cjP  \r\n",
    ],
)
def test_a_body_that_begins_like_a_picture_is_one_whatever_curl_announces(beginning: bytes) -> None:
    check_content_type(FORM)
    assert picture_of(FORM, beginning + b"rest") == beginning + b"rest"


def test_other_bodies_of_forms_are_told_what_to_send() -> None:
    error = refused(FORM, b"name=value")
    assert error.status == 415
    assert "does not begin like a picture" in str(error)
    error = refused(FORM, PNG.replace(b"\r", b"").replace(b"\n", b""))
    assert error.status == 400
    assert "use --data-binary" in str(error)


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "multipart/mixed; boundary=x", "nonsense"])
def test_other_types_are_refused_before_their_body_is_read(kind: str) -> None:
    with pytest.raises(Rejected, match="Content-Type is") as caught:
        check_content_type(kind)
    assert caught.value.status == 415


@given(
    st.binary(min_size=1).filter(lambda content: b"\r\n--" not in content),
    st.sampled_from(["x.png", "with blank.png", 'quote".png', "ü;.png"]),
)
def test_the_file_of_a_form_is_found_byte_for_byte(content: bytes, name: str) -> None:
    kind, body = form(("image", name, content))
    check_content_type(kind)
    assert picture_of(kind, body) == content
    assert picture_of(kind, b"preamble\r\n" + body + b"epilogue\r\n") == content


def test_fields_beside_the_file_do_no_harm_and_a_field_alone_is_the_picture() -> None:
    assert picture_of(*form(("note", None, b"hello"), ("image", "x.png", PNG))) == PNG
    assert picture_of(*form(("image", None, b"GIF89a"))) == b"GIF89a"


@pytest.mark.parametrize(
    ("kind", "body", "sentence"),
    [
        (*form(("a", "a.png", PNG), ("b", "b.png", PNG)), "the form has 2 files"),
        (*form(("image", "x.png", b"")), "file is empty"),
        ("multipart/form-data", b"--x\r\n", "has no boundary"),
        ("multipart/form-data; boundary=x", PNG, "does not end with its boundary"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nhalf a pict", "does not end with its boundary"),
        ("multipart/form-data; boundary=x", b"--x--\r\n", "the form has 0 files"),
        ("multipart/form-data; boundary=x", b"--x\r\nno header\r\n--x--", "without header and content"),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Transfer-Encoding: base64\r\n\r\nR0lG\r\n--x--",
            "Content-Transfer-Encoding 'base64'",
        ),
    ],
)
def test_forms_without_one_whole_picture_are_told_what_to_send(kind: str, body: bytes, sentence: str) -> None:
    assert sentence in str(refused(kind, body))


@given(st.binary(max_size=200))
def test_no_body_of_a_form_is_a_fault_of_the_program(body: bytes) -> None:
    with contextlib.suppress(Rejected):
        picture_of("multipart/form-data; boundary=x", body)
