"""The live window: the last answers of each model version, bounded, as rows beside the reference."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

COLD_START = "cold_start"
"""`Ranking.answer` of a member that nothing is known of."""

CONTINUE = "continue_watching"
"""The kind of a home page's first row, where there is something to continue."""

MEAN_OF = 20
"""`score_mean` is over at most this many titles, best first."""

VERSIONS = 4
"""Versions remembered; of more the one not seen for longest is forgotten."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What is remembered of an exposure."""

    member_id: str
    cold: bool
    values: Mapping[str, float]


class Window:
    """The last answers of each version.

    Args:
        limit: most answers kept of a version.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._versions: OrderedDict[str, deque[Answer]] = OrderedDict()

    def add(self, row: Mapping[str, Any]) -> None:
        """Remember an exposure (a row of `exposures.EXPOSURE_SCHEMA`), at the cost of the oldest.

        One whose scores are not the version's own (`fallback`) tells nothing of it and is left out, and so
        is a shadow, which nobody saw. Titles to continue were watched: those of a page are left out too.
        """
        if row.get("fallback") is not None or row.get("shadow_of") is not None:
            return
        version = row["model_version"]
        answers = self._versions.setdefault(version, deque(maxlen=self._limit))
        self._versions.move_to_end(version)
        if len(self._versions) > VERSIONS:
            self._versions.popitem(last=False)
        values = {name: np.nan if value is None else value for name, value in row["features"]}
        begun = sum(each["count"] for each in row.get("rows") or () if each["kind"] == CONTINUE)
        shown = row["titles"][begun:]
        scores = sorted((title["score"] for title in shown if title["score"] is not None), reverse=True)
        if scores:
            values["score_top"] = scores[0]
            values["score_mean"] = float(np.mean(scores[:MEAN_OF]))
        answers.append(Answer(member_id=row["member_id"], cold=row["answer"] == COLD_START, values=values))

    def copy(self) -> Window:
        """The same answers, unmoved by later ones."""
        other = Window(self._limit)
        other._versions = OrderedDict((v, answers.copy()) for v, answers in self._versions.items())
        return other

    @property
    def newest(self) -> str:
        """The version that answered last; "" before the first answer."""
        return next(reversed(self._versions), "")

    def rows(self, version: str) -> int:
        """Answers remembered of a version."""
        return len(self._versions.get(version, ()))

    def cold_share(self, version: str) -> float | None:
        """Share of cold-start answers among them, in [0, 1]; None without answers."""
        answers = self._versions.get(version)
        return sum(answer.cold for answer in answers) / len(answers) if answers else None

    def frame(self, version: str) -> pd.DataFrame:
        """One float64 row a member: features, `score_top` and `score_mean` of the latest personal answer.

        The training reference too has one row a member, so that a member who asks often counts once.
        """
        import pandas as pd

        latest = {a.member_id: a.values for a in self._versions.get(version, ()) if not a.cold}
        return pd.DataFrame(list(latest.values()), dtype=np.float64)
