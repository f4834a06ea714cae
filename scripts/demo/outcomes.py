"""Reads the results of the client and compares each answer with the model's own answer and the true digit."""

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
    """Returns the outcomes of the requests of a client.

    Args:
        folder: output folder of the client.
        pictures: all pictures that it could send.
        alone: the model's own answer to each picture, shape pictures x classes.
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
        rows: rows of requests.csv.
        answers: probabilities of each answer, shape requests x classes; NaN without an answer.
        pictures: all pictures that could be sent.
        alone: the model's own answer to each picture.
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
