"""What recommenders' scripts share: the task they are given, the lists they answer with, when training ends.

NumPy alone: each peer's venv has it. Titles and members are positions.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

LENGTH = 100
"""Titles in a list."""
CUT = 20
"""Places that count where a script compares its own epochs."""
BATCH = 512

Ragged = Sequence[NDArray[np.int32]]
Score = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""Scores float [b, titles] of the queries at b positions; not finite where the model has nothing to say."""


class Checkpoint(Protocol):
    """Where a script keeps its model and how far `train` is."""

    def load(self) -> dict[str, Any] | None:
        """Put the model back as it was at the last `save` and return what that was given; None: none yet."""
        ...

    def save(self, course: dict[str, Any]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to learn from and what is asked.

    Args:
        member: int32 [n], of each training pair in time order; `title` likewise.
        asked: int32 [q], the member of each query.
        history: int32, titles watched before each query, oldest first, queries one after the other.
        bounds: int64 [q + 1], where each query's part of `history` begins.
        answer: int32, held-out titles in the same form; empty where the script may not see them.
        answer_bounds: int64 [q + 1].
        members: how many there are; `titles` likewise.
    """

    member: NDArray[np.int32]
    title: NDArray[np.int32]
    asked: NDArray[np.int32]
    history: NDArray[np.int32]
    bounds: NDArray[np.int64]
    answer: NDArray[np.int32]
    answer_bounds: NDArray[np.int64]
    members: int
    titles: int

    @property
    def histories(self) -> Ragged:
        """Per query."""
        return parted(self.history, self.bounds)

    @property
    def answers(self) -> Ragged:
        """Per query."""
        return parted(self.answer, self.answer_bounds)

    def write(self, path: str) -> None:
        np.savez(path, **asdict(self))

    @classmethod
    def read(cls, path: str) -> Task:
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return cls(**{name: value if value.ndim else int(value) for name, value in arrays.items()})


def joined(parts: Ragged) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Parts one after the other, and where each begins."""
    bounds = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return np.concatenate([*parts, np.zeros(0, np.int32)]).astype(np.int32), bounds


def parted(flat: NDArray[np.int32], bounds: NDArray[np.int64]) -> Ragged:
    """The inverse of `joined`."""
    return [flat[begin:end] for begin, end in itertools.pairwise(bounds)]


def rank(task: Task, score: Score) -> NDArray[np.int32]:
    """The best unseen titles of each query, int32 [q, LENGTH]: equal scores by position, -1 after the last.

    A query of which the model says nothing gets the most watched titles.
    """
    popular = np.bincount(task.title, minlength=task.titles).astype(np.float32)
    histories = task.histories
    lists = np.full((len(histories), LENGTH), -1, np.int32)
    for start in range(0, len(histories), BATCH):
        rows = np.arange(start, min(start + BATCH, len(histories)))
        scores = np.array(score(rows), np.float32)
        scores[~np.isfinite(scores)] = -np.inf
        scores[np.isneginf(scores).all(1)] = popular
        for at, row in enumerate(rows):
            scores[at, histories[row]] = -np.inf
        lists[rows] = top(scores)
    return lists


def top(scores: NDArray[np.float32]) -> NDArray[np.int32]:
    """The best LENGTH titles of each row, int32 [b, LENGTH]: equal scores by position, never one at -inf."""
    lists = np.full((len(scores), LENGTH), -1, np.int32)
    width = min(LENGTH, scores.shape[1])
    least = np.partition(scores, -width, axis=1)[:, -width]
    for row, mine in enumerate(scores):
        among = np.flatnonzero((mine >= least[row]) & (mine > -np.inf))
        best = among[np.argsort(-mine[among], kind="stable")[:width]]
        lists[row, : len(best)] = best
    return lists


def accuracy(lists: NDArray[np.int32], answers: Ragged) -> dict[str, NDArray[np.float64]]:
    """Per query: recall@20, ndcg@20 (binary gain, ideal list of min(answers, 20)) and mrr@100."""
    hits = np.stack([np.isin(row, answer) for row, answer in zip(lists, answers, strict=True)])
    counts = np.array([len(answer) for answer in answers])
    discount = 1 / np.log2(np.arange(2, CUT + 2))
    ideal = np.cumsum(discount)[np.minimum(counts, CUT) - 1]
    first = np.where(hits.any(1), 1 / (hits.argmax(1) + 1), 0.0)
    return {
        "ndcg@20": hits[:, :CUT] @ discount / ideal,
        "recall@20": hits[:, :CUT].sum(1) / counts,
        "mrr@100": first,
    }


def train(
    task: Task,
    step: Callable[[float], None],
    score: Score,
    *,
    epochs: int,
    budget_s: float,
    metric: str = "ndcg@20",
    enough: float = math.inf,
    checkpoint: Checkpoint | None = None,
) -> tuple[NDArray[np.int32], dict[str, Any]]:
    """Train epoch by epoch; with answers at hand, look at ever rarer epochs and keep the best one's lists.

    Args:
        step: trains for one epoch, or for the seconds that are left: its argument.
        epochs: at most; training also ends once `budget_s` seconds went into it (looking is not counted),
            long after the best epoch, or where a look finds `enough`.
        metric: of `accuracy`, the mean that ranks epochs. Queries without an answer don't count.
        checkpoint: kept after every epoch; training goes on from it.

    Returns:
        Lists as from `rank`, and the epoch they come from, fit_s (training alone) and score_s (one look).
    """
    judged = np.diff(task.answer_bounds) > 0
    answers = [answer for answer in task.answers if len(answer)]
    course: dict[str, Any] = (checkpoint and checkpoint.load()) or {
        "epoch": 0,
        "spent": 0.0,
        "due": 1,
        "lists": None,
        "found": {"epochs": 0, "best": -1.0},
    }
    for epoch in range(course["epoch"] + 1, epochs + 1):
        begun = time.perf_counter()
        step(budget_s - course["spent"])
        course["epoch"] = epoch
        course["spent"] += time.perf_counter() - begun
        past = judged.any() and epoch > 2 * course["found"]["epochs"] + 10
        last = epoch == epochs or course["spent"] >= budget_s or past
        if last or (judged.any() and epoch >= course["due"]):
            course["due"] = math.ceil(epoch * 1.2) + 1
            begun = time.perf_counter()
            looked = rank(task, score)
            score_s = time.perf_counter() - begun
            value = float(epoch)
            if judged.any():
                value = float(accuracy(looked[judged], answers)[metric].mean())
            if value > course["found"]["best"]:
                found = {"epochs": epoch, "best": value, "fit_s": course["spent"], "score_s": score_s}
                course |= {"lists": looked, "found": found}
        if last or course["found"]["best"] >= enough:
            break
        if checkpoint is not None:
            checkpoint.save(course)
    assert course["lists"] is not None
    return course["lists"], {**course["found"], "trained_s": course["spent"]}
