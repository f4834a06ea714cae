"""From what the client has written to outcomes: each answer beside the model's own and the true digit."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scripts.demo.client import OUTPUTS, REQUESTS
from scripts.demo.pictures import Picture, Probabilities
from scripts.demo.summary import Outcome, wrong_answers

_NO_BATCH = -1


def read_outcomes(folder: Path, pictures: Sequence[Picture], alone: Probabilities) -> list[Outcome]:
    """Returns the outcomes of one client's requests.

    Args:
        folder: where the client has written.
        pictures: all that it could send.
        alone: the model's own answer to each of them, pictures x classes.
    """
    with (folder / REQUESTS).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return judge(rows, np.load(folder / OUTPUTS), pictures, alone)


def judge(
    rows: Sequence[Mapping[str, str]],
    answers: npt.NDArray[np.float32],
    pictures: Sequence[Picture],
    alone: Probabilities,
) -> list[Outcome]:
    """Returns the outcomes of requests.

    Args:
        rows: of requests.csv.
        answers: probabilities by request, requests x classes; not a number where there is none.
        pictures: all that could be sent.
        alone: the model's own answer to each of them.
    """
    index = {picture.name: number for number, picture in enumerate(pictures)}
    sent = [index[row["payload"]] for row in rows]
    labels = np.array([pictures[number].label for number in sent])
    wrong = wrong_answers(answers, alone[sent])
    correct = np.nan_to_num(answers).argmax(axis=1) == labels
    return [
        Outcome(
            arrival_s=float(row["arrival_s"]),
            latency_s=float(row["latency_s"]),
            answered=row["status"] == "200" and not row["error"],
            wrong=bool(is_wrong),
            correct=bool(is_correct),
            backend=row["backend"],
            batch_id=int(row["batch_id"] or _NO_BATCH),
        )
        for row, is_wrong, is_correct in zip(rows, wrong, correct, strict=True)
    ]
