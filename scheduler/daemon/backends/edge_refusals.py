"""What an edge server's refusal means: its kind, its sentence, and whether the size of the batch is the cause."""

import re

import orjson

from scheduler.domain.batches import Failure, FailureKind
from scheduler.domain.failures import TOO_LARGE, edge_kind

ERROR_CHARACTERS = 500

# Triton: "inference request batch-size must be <= 8 for 'x'". Ours: "the batch has 12 items, but at most 8 fit", "takes
# at most 8 items". Others: "batch size 9 is larger than 8", "exceeds the maximum batch size of 8".
_BATCH_SIZE = re.compile(r"batch[ _-]?size|\bitems\b.*\bat most\b|\bat most \d+ items\b", re.IGNORECASE | re.DOTALL)
_MOST = re.compile(
    r"(?:<=|at most|no more than|up to|(?:larger|greater|bigger|more) than"
    r"|(?:exceed(?:s|ed|ing)?|max(?:imum)?|limit)[\w \-:='\"]*?)"
    r"\s*[:=]?\s*(?:the )?(?:allowed |maximum |limit |batch[ _-]?size )*(?:of |is )?(\d+)",
    re.IGNORECASE,
)


def refused(status: int, retry_after: str | None, answer: bytes, *, items: int) -> Failure:
    """Returns the failure that an HTTP status other than 200 means.

    Args:
        status: of the answer.
        retry_after: value of its header of that name; None where it is absent.
        answer: the body.
        items: of the batch that was refused.
    """
    why = protocol_error(answer)
    kind, sentence = edge_kind(status, says_why=why is not None), error_sentence(answer)
    most, by_size = None, status in (TOO_LARGE, 500)
    if kind is FailureKind.REJECTED or status == 500:
        most = largest_batch(sentence, items=items)
        by_size = by_size or most is not None or _BATCH_SIZE.search(sentence) is not None
    message = f"the edge server answered {status}: {sentence}"
    return Failure(kind, message, seconds(retry_after), by_size=by_size, largest_batch=most)


def about_form(failure: Failure) -> bool:
    """Whether the form of the tensors may be why a server did not answer: others than it names are not."""
    if failure.largest_batch is not None or (failure.kind is FailureKind.REJECTED and failure.by_size):
        return False
    return failure.kind in (FailureKind.REJECTED, FailureKind.SERVER, FailureKind.BROKEN)


def largest_batch(sentence: str, *, items: int) -> int | None:
    """Returns the most items in a batch that a refusal of a batch names; None where it names none.

    >>> largest_batch("[request id: 7] inference request batch-size must be <= 8 for 'x'", items=12)
    8
    >>> largest_batch("the batch has 12 items, but at most 8 fit: send it in parts", items=12)
    8
    >>> largest_batch("batch size 9 is larger than 8", items=9)
    8
    >>> largest_batch("picture 3 is larger than 2 MB", items=12)
    """
    if _BATCH_SIZE.search(sentence) is None:
        return None
    found = [int(number) for number in _MOST.findall(sentence)]
    return next((most for most in reversed(found) if 1 <= most < items), None)


def error_sentence(answer: bytes) -> str:
    """Returns the protocol's error text, or else the beginning of the body."""
    why = protocol_error(answer)
    return (answer[:200].decode(errors="replace") or "no reason given") if why is None else why


def protocol_error(answer: bytes) -> str | None:
    """Returns the error text of a body of the protocol (`error`) or of FastAPI (`detail`); None for another body.

    >>> protocol_error(b'{"error": "no picture"}'), protocol_error(b"<html>400 Bad Request</html>")
    ('no picture', None)
    """
    try:
        said = orjson.loads(answer)
    except ValueError:
        return None
    if not isinstance(said, dict):
        return None
    error = said.get("error", said.get("detail"))
    return None if error is None else str(error)[:ERROR_CHARACTERS]


def seconds(value: object) -> float | None:
    """Returns a plausible number of seconds, None for anything else."""
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if 0 <= found < 1e6 else None
