"""What the serving process reads of a member: about a millisecond, from what Feast's online store holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from matinee.config import Settings
from matinee.errors import Unavailable
from matinee.features.titles import genre_names, read_catalogue
from matinee.features.vectors import MEMBER_COUNTS

SERVICE = "serving"


@dataclass(frozen=True, kw_only=True)
class MemberState:
    """A member as the online store knows them.

    Args:
        watched_title_ids: every distinct title, in the order first watched.
        watched_times: microseconds of each of those first watches.
        features: dense values by name, as `vectors.member_vector` orders and rounds them.
        event_time: the member's latest event of any type, microseconds.
    """

    member_id: str
    watched_title_ids: Sequence[str]
    watched_times: Sequence[int]
    features: Mapping[str, float]
    event_time: int


class OnlineReader:
    """Reads members one at a time. One reader serves a process.

    Raises:
        NotFound: the home has no catalogue.
    """

    def __init__(self, settings: Settings) -> None:
        from matinee.features.store import FeatureStore

        self._store = FeatureStore(settings)
        self._genres = genre_names(read_catalogue(settings))
        self._views: Sequence[str] | None = None

    def raw(self, member_id: str) -> dict[str, Any]:
        """Every feature of the "serving" service by name; empty for an unknown member.

        Raises:
            Unavailable: the store is gone or does not answer.
        """
        views = self._views or list(self._store.features(SERVICE))
        self._views = views
        found: dict[str, Any] = {}
        for view in views:
            (row,) = self._store.read_rows(view, [member_id])
            found.update(row or {})
        return found

    def member(self, member_id: str) -> MemberState | None:
        """The member's state; None where no event of theirs is known.

        Raises:
            Unavailable: the store is gone or does not answer.
        """
        found = self.raw(member_id)
        if "last_event_time" not in found:
            return None
        features = {name: float(found[name]) for name in MEMBER_COUNTS}
        held = dict(zip(found.get("genres", ()), found.get("affinity", ()), strict=True))
        missing = 0.0 if "genres" in found else float("nan")
        for genre in self._genres:
            features[f"affinity[{genre}]"] = float(np.float32(held.get(genre, missing)))
        return MemberState(
            member_id=member_id,
            watched_title_ids=found.get("watched_title_ids", []),
            watched_times=found.get("watched_times", []),
            features=features,
            event_time=found["last_event_time"],
        )

    def check(self) -> None:
        """Whether the store answers, for readiness.

        Raises:
            Unavailable: it does not.
        """
        try:
            self.raw("")
        except Unavailable:
            self._views = None
            raise
