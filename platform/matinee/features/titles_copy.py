"""All titles of a feature view as columns in memory, following what the online store holds.

For the hot path, which scores every title at once. The copy never holds what the store does not: it is
read from there, and a row that is gone there goes here at the next refresh.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matinee.errors import MatineeError, NotFound, Unavailable
from matinee.features import packed
from matinee.features.rows import Cursor

if TYPE_CHECKING:
    from matinee.features.store import FeatureStore

logger = logging.getLogger(__name__)

_NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, kw_only=True)
class TitleValues:
    """The features of every title at one moment, in the order of the titles. Nothing in it changes.

    Args:
        title_ids: of the catalogue.
        present: bool [titles]: the store has a row, not older than the view's time to live.
        event_time: int64 [titles]: microseconds; the smallest int64 where there is no row.
        values: by feature, an array [titles]: the feature's NumPy type, objects for texts and lists.
        missing: by feature, bool [titles]: no row, or a null.
        types: Arrow type by feature.
    """

    title_ids: Sequence[str]
    present: npt.NDArray[np.bool_]
    event_time: npt.NDArray[np.int64]
    values: Mapping[str, npt.NDArray[Any]]
    missing: Mapping[str, npt.NDArray[np.bool_]]
    types: Mapping[str, pa.DataType]

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """A numeric feature, float64 [titles]; NaN where it is missing.

        Raises:
            NotFound: the view has no such feature.
        """
        held = self._of(name).astype(np.float64)
        held[self.missing[name]] = np.nan
        return held

    def column(self, name: str) -> pa.Array:
        """A feature as Arrow [titles]; null where it is missing.

        Raises:
            NotFound: the view has no such feature.
        """
        held, kind = self._of(name), self.types[name]
        plain = pa.int64() if pa.types.is_timestamp(kind) else kind
        return pa.array(held, plain, mask=self.missing[name]).cast(kind)

    def table(self) -> pa.Table:
        """`title_id`, `event_timestamp` and every feature, a row a title."""
        times = pa.array(self.event_time, mask=self.event_time == _NEVER).cast(pa.timestamp("us", "UTC"))
        columns = {name: self.column(name) for name in self.values}
        return pa.table({"title_id": pa.array(self.title_ids), "event_timestamp": times, **columns})

    def _of(self, name: str) -> npt.NDArray[Any]:
        if name not in self.values:
            raise NotFound(f"feature {name!r}; the copy has {', '.join(self.values)}")
        return self.values[name]


@dataclass(kw_only=True)
class _Held:
    """Rows as they were read; arrays are replaced, never written to."""

    event_time: npt.NDArray[np.int64]
    values: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    missing: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)


class TitleCopy:
    """A copy of one title view. `refresh`, or `start` and let it follow; then read `values`.

    Any thread may read while another refreshes: `values` is replaced whole.

    Args:
        store: the online store.
        view: a view of titles.
        title_ids: the catalogue's, which the columns follow; rows of other titles are left out.
    """

    def __init__(self, store: FeatureStore, view: str, title_ids: Sequence[str]) -> None:
        self._store = store
        self._view = view
        self._ids = list(title_ids)
        self._decoder = store.decoder(view)
        self._ttl_us = store.ttl_us(view)
        self._cursor: Cursor | None = None
        self._checked = float("-inf")
        self._held = self._nothing()
        self._values = self._snapshot()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def values(self) -> TitleValues:
        """What the last refresh read; no title is present before the first."""
        return self._values

    @property
    def age_s(self) -> float:
        """Seconds since the copy was last known to be what the store holds; infinite before that."""
        return time.monotonic() - self._checked

    def refresh(self) -> int:
        """Take over what changed in the store since the last time.

        Returns:
            How many rows were read.

        Raises:
            Unavailable: the store does not answer; the copy stays as it was, and ages.
        """
        with self._lock:
            started = time.monotonic()
            cursor, rows, whole = self._store.changed(self._view, self._ids, self._cursor)
            if whole or rows:
                self._held = self._merged(rows, self._nothing() if whole else self._held)
            if whole or rows or self._ttl_us:
                self._values = self._snapshot()
            self._cursor = cursor
            self._checked = started
            return len(rows)

    def start(self, interval_s: float) -> None:
        """Follow the store in a thread, looking each `interval_s`; while it is silent, the copy ages."""
        assert self._thread is None, "the copy follows already"
        self._thread = threading.Thread(
            target=self._follow, args=(interval_s,), name=f"copy-{self._view}", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _follow(self, interval_s: float) -> None:
        failing = False
        while True:
            try:
                self.refresh()
                failing = False
            except MatineeError as failure:
                if not failing or not isinstance(failure, Unavailable):
                    logger.warning("copy of %s, %.1f s old: %s", self._view, self.age_s, failure)
                failing = True
            if self._stop.wait(interval_s):
                return

    def _nothing(self) -> _Held:
        count = len(self._ids)
        held = _Held(event_time=np.full(count, _NEVER, np.int64))
        for name, (values, _) in self._decoder.columns([]).items():
            held.values[name] = np.zeros(count, values.dtype)
            held.missing[name] = np.ones(count, bool)
        return held

    def _merged(self, rows: Mapping[int, bytes], held: _Held) -> _Held:
        places = np.fromiter(rows, np.int64, len(rows))
        found = list(rows.values())
        times = held.event_time.copy()
        times[places] = [packed.event_time(row) for row in found]
        merged = _Held(event_time=times, values=dict(held.values), missing=dict(held.missing))
        for name, (values, missing) in self._decoder.columns(found).items():
            for whole, part in ((merged.values, values), (merged.missing, missing)):
                column = whole[name].copy()
                column[places] = part
                whole[name] = column
        return merged

    def _snapshot(self) -> TitleValues:
        held = self._held
        present = held.event_time > _NEVER
        if self._ttl_us:
            present &= held.event_time >= time.time_ns() // 1000 - self._ttl_us
        layout = self._decoder.layout
        return TitleValues(
            title_ids=self._ids,
            present=present,
            event_time=held.event_time,
            values=held.values,
            missing={name: missing | ~present for name, missing in held.missing.items()},
            types={name: packed.arrow_type(kind) for name, kind in layout.features},
        )
