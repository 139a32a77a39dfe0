"""Feast's own online stores (Cassandra, DynamoDB, ...) behind `features.rows.Rows`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import feast
    from feast.infra.key_encoding_utils import deserialize_entity_key
    from feast.protos.feast.types.Value_pb2 import Value

from matinee.features import packed
from matinee.features.packed import Decoder, Layout
from matinee.features.rows import UNTOLD, Cursor
from matinee.features.store.online_store import encode_protos, layout_of, proto

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_READ_KEYS = 100
"""DynamoDB's most keys of one batch."""


class FeastRows:
    """Rows that a store of Feast's own keeps, packed and unpacked on the way.

    Such a store doesn't compare event times: the later write wins, whatever its event time. It keeps no
    record of changes, so a follower reads everything each time, and cannot tell that it lost what it held.

    Args:
        store: opens Feast's store.
        view: a view by the name under which its rows lie.
    """

    def __init__(
        self, store: Callable[[], feast.FeatureStore], view: Callable[[str], feast.FeatureView]
    ) -> None:
        self._store = store
        self._view = view

    def put(self, view: str, keys: Sequence[bytes], values: Sequence[bytes], layout: Layout) -> None:
        """Write rows; see `Rows`, but for the order in time."""
        store = self._store()
        decoder = Decoder(layout, layout.names, opaque=_value)
        kinds = layout.kinds
        data = [
            (
                deserialize_entity_key(key),
                {
                    name: proto(kinds[name], value)
                    for name, value in zip(layout.names, decoder.decode(row), strict=True)
                },
                _EPOCH + timedelta(microseconds=packed.event_time(row)),
                None,
            )
            for key, row in zip(keys, values, strict=True)
        ]
        store._get_provider().online_write_batch(store.config, self._view(view), data, None)

    def get(self, views: Sequence[str], keys: Sequence[bytes]) -> list[list[bytes | None]]:
        """Rows by view and key, a read for each view; see `Rows`."""
        store = self._store()
        entities = [deserialize_entity_key(key) for key in keys]
        answer = []
        for name in views:
            view = self._view(name)
            layout = layout_of(view)
            found: list[bytes | None] = []
            for start in range(0, len(entities), _READ_KEYS):
                read = store._get_provider().online_read(
                    store.config, view, entities[start : start + _READ_KEYS], list(layout.names)
                )
                found += [_packed(layout, moment, held) for moment, held in read]
            answer.append(found)
        return answer

    def changed(
        self, view: str, keys: Sequence[bytes], since: Cursor | None
    ) -> tuple[Cursor, dict[bytes, bytes], bool]:
        """All rows of `keys`; see `Rows`."""
        (found,) = self.get([view], keys)
        held = {key: value for key, value in zip(keys, found, strict=True) if value is not None}
        return Cursor(None, 0, 0, time.monotonic()), held, True

    def layout(self, fingerprint: bytes) -> Layout | None:
        """None: rows come in the layout the view has."""
        return None

    def declare(self, views: Sequence[str]) -> None:
        """Nothing: `feast apply` makes the tables."""

    def drop(self, view: str) -> None:
        """Nothing: `feast apply` drops the tables."""

    def clear(self) -> None:
        """Nothing: `feast teardown` deletes everything."""

    def generation(self) -> str | None:
        """Always the same text: such a store cannot tell."""
        return UNTOLD

    def close(self) -> None:
        """Nothing is held."""


def _packed(layout: Layout, moment: datetime | None, held: dict[str, Value] | None) -> bytes | None:
    if moment is None or not held:
        return None
    _, (value,) = encode_protos(layout, [(None, held, moment, None)])
    return value


def _value(value: bytes, start: int, end: int) -> Any:
    return Value.FromString(value[start:end])
