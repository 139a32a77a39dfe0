"""Segments of an evaluation: some of the members, or some of the titles to be foreseen. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matinee.training.evaluate.metrics import Outcome, accuracy
from matinee.training.evaluate.protocols import Cases

Mask = npt.NDArray[np.bool_]

WARM_EVENTS = 5
"""Least training interactions of a member that counts as warm."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Which cases count, and which of their relevant titles. None: all.

    Args:
        cases: bool [m].
        titles: bool [titles]; only these are to be foreseen, and only cases with any of them count.
    """

    cases: Mask | None = None
    titles: Mask | None = None


def member_segments(
    cases: Cases, labels: Mapping[str, Sequence[str | None]] | None = None
) -> dict[str, Segment]:
    """Segments by member.

    `new members`: without training interactions. `light members`, `heavy members`: with no more of them
    than the median of the others, and with more.

    Args:
        labels: what is known of the members of the vocabulary, by kind ("country"): each value of a kind
            makes a segment "country SE"; None is unknown and in no segment.
    """
    trained = cases.trained
    median = np.median(trained[trained > 0]) if trained.any() else 0
    found = {
        "new members": Segment(cases=trained == 0),
        "light members": Segment(cases=(trained > 0) & (trained <= median)),
        "heavy members": Segment(cases=trained > median),
    }
    for kind, values in (labels or {}).items():
        own = np.array([values[member] for member in cases.members], object)
        for value in sorted({value for value in own if value is not None}):
            found[f"{kind} {value}"] = Segment(cases=own == value)
    return found


def title_segments(cases: Cases, genres: Mask, names: Sequence[str]) -> dict[str, Segment]:
    """Segments by title to be foreseen: `new titles`, without training interactions, and each genre.

    Args:
        genres: bool [titles, genres].
        names: of the genres.
    """
    return {
        "new titles": Segment(titles=cases.watches == 0),
        **{f"genre {name}": Segment(titles=genres[:, column]) for column, name in enumerate(names)},
    }


def within(segment: Segment, judged: Outcome, cases: Cases) -> Outcome:
    """What the lists achieved in a segment. One by titles has the metrics of `ACCURACY` alone."""
    every = np.ones(len(cases), np.bool_) if segment.cases is None else segment.cases
    rows: list[int] = np.flatnonzero(every).tolist()
    if segment.titles is None:
        return judged.take(every)
    wanted = {row: cases.relevant[row][segment.titles[cases.relevant[row]]] for row in rows}
    kept = np.array([row for row in rows if len(wanted[row])], np.intp)
    part = judged.take(kept)
    values = accuracy(part.lists, [wanted[row] for row in kept], judged.titles)
    return Outcome(values=values, lists=part.lists, titles=part.titles, members=part.members)
