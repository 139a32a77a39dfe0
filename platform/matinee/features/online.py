"""What the serving process reads of a member, in one read of what Feast's online store holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from matinee.config import Settings
from matinee.features.rows import UNTOLD, Cursor
from matinee.features.titles import genre_names, read_catalogue
from matinee.features.vectors import MEMBER_COUNTS

SERVICE = "serving"

Reads = Mapping[str, tuple[int | None, Mapping[str, Any]]]
"""What was read of a key: by view the row's event_timestamp (microseconds; None where the store had no row)
and its values by feature."""


@dataclass(frozen=True, kw_only=True)
class MemberState:
    """A member as the online store knows them.

    Args:
        watched_title_ids: every distinct title, in the order first watched.
        watched_times: microseconds of each of those first watches.
        features: dense values by name, as `vectors.member_vector` orders and rounds them.
        event_time: the member's latest event of any type, microseconds.
        begun: titles played lately and not rated, the latest first, with the seconds watched since they were
            first among the last stops.
    """

    member_id: str
    watched_title_ids: Sequence[str]
    watched_times: Sequence[int]
    features: Mapping[str, float]
    event_time: int
    begun: Sequence[tuple[str, float]] = ()


class OnlineReader:
    """Reads members one at a time. One reader serves a process.

    Raises:
        NotFound: the home has no catalogue.
    """

    def __init__(self, settings: Settings) -> None:
        from matinee.features.store import FeatureStore

        self._store = FeatureStore(settings)
        self._genres = genre_names(read_catalogue(settings))
        self._views: tuple[str, ...] = ()

    def raw(self, member_id: str) -> dict[str, Any]:
        """Every feature of the "serving" service by name; empty for an unknown member.

        Raises:
            Unavailable: the store is gone or does not answer.
        """
        return self._store.read_one(SERVICE, member_id)

    def member(self, member_id: str) -> MemberState | None:
        """The member's state; None where no event of theirs is known.

        Raises:
            Unavailable: the store is gone or does not answer.
        """
        return self._state(member_id, self.raw(member_id))

    def observed(self, member_id: str) -> tuple[MemberState | None, Reads]:
        """The member's state as `member` gives it, and what was read for it.

        A view whose row is older than its time to live is left out of what was read.

        Raises:
            Unavailable: the store is gone or does not answer.
        """
        reads: dict[str, tuple[int | None, Mapping[str, Any]]] = {}
        for part in self._store.read_views(SERVICE, [member_id]):
            (row,), (stamp,) = part.rows, part.times
            if row is not None:
                reads[part.view] = (stamp, dict(zip(part.names, row, strict=True)))
            elif stamp is None:
                reads[part.view] = (None, {})
        found = {name: value for _, values in reads.values() for name, value in values.items()}
        return self._state(member_id, found), reads

    def written(
        self, member_ids: Collection[str], since: Mapping[str, Cursor]
    ) -> tuple[Mapping[str, Cursor], set[str] | None]:
        """Which members' features were written since an earlier call.

        Args:
            since: what that call returned; empty: there was none.

        Returns:
            For the next call; and the members, or None where the store cannot tell: at the first call, after
            it lost what it held, and always where it is one of Feast's own.

        Raises:
            Unavailable: the store is gone or does not answer.
        """
        if not self._views and self._store.generation() != UNTOLD:
            self._views = tuple(self._store.features(SERVICE))
        asked = list(member_ids) if since else []
        cursors: dict[str, Cursor] = {}
        found: set[str] = set()
        told = bool(since)
        for view in self._views:
            cursors[view], rows, whole = self._store.changed(view, asked, since.get(view))
            found.update(asked[place] for place in rows)
            told = told and not whole
        return cursors, found if told else None

    def schemas(self) -> dict[str, dict[str, pa.DataType]]:
        """The views that `observed` reads, with the types of the features it reads of each.

        Raises:
            Unavailable: the store was never applied.
        """
        return {
            view: {name: self._store.schema(view)[name] for name in names}
            for view, names in self._store.features(SERVICE).items()
        }

    def _state(self, member_id: str, found: Mapping[str, Any]) -> MemberState | None:
        if found.get("last_event_time") is None:
            return None
        features = {name: _number(found.get(name)) for name in MEMBER_COUNTS}
        genres, weights = found.get("genres"), found.get("affinity")
        held = dict(zip(genres or (), weights or (), strict=True))
        missing = float("nan") if genres is None else 0.0
        for genre in self._genres:
            features[f"affinity[{genre}]"] = float(np.float32(held.get(genre, missing)))
        return MemberState(
            member_id=member_id,
            watched_title_ids=found.get("watched_title_ids") or [],
            watched_times=found.get("watched_times") or [],
            features=features,
            event_time=found["last_event_time"],
            begun=_begun(found),
        )

    def check(self) -> None:
        """Whether the store answers, for readiness.

        Raises:
            Unavailable: it does not.
        """
        self.raw("")


def _begun(found: Mapping[str, Any]) -> list[tuple[str, float]]:
    rated = set(found.get("rated_title_ids") or ())
    seconds: Counter[str] = Counter()
    for title_id, each in zip(
        found.get("stopped_title_ids") or (), found.get("stopped_s") or (), strict=True
    ):
        seconds[title_id] += each
    played = reversed(found.get("played_title_ids") or ())
    return [(title_id, float(seconds[title_id])) for title_id in played if title_id not in rated]


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
