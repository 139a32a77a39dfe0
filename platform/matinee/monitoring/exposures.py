"""Exposures: what was shown to whom and why, read from the topic and kept in the lake.

A part of the lake is its own commit: its rows and the offsets they end at lie in one Parquet file that
appears whole. A part's name is its number, and a name is taken once, so a second writer that has lost
its lease cannot add a row: it fails and starts again from what is committed.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from matinee.errors import InvalidInput, StorageError
from matinee.schema import TIMESTAMP

EXPOSURE_SCHEMA = pa.schema(
    [
        pa.field("exposure_id", pa.string(), nullable=False),
        pa.field("time", TIMESTAMP, nullable=False),
        pa.field("member_id", pa.string(), nullable=False),
        pa.field("surface", pa.string(), nullable=False),
        pa.field("model_version", pa.string(), nullable=False),
        pa.field("cell", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field(
            "titles",
            pa.list_(
                pa.struct(
                    [
                        pa.field("title_id", pa.string(), nullable=False),
                        pa.field("position", pa.int32(), nullable=False),
                        pa.field("score", pa.float64()),
                    ]
                )
            ),
            nullable=False,
        ),
        pa.field("features", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("latency_ms", pa.float64()),
        pa.field("fallback", pa.string()),
        pa.field("made_at", TIMESTAMP),
        pa.field(
            "rows",
            pa.list_(
                pa.struct(
                    [
                        pa.field("kind", pa.string(), nullable=False),
                        pa.field("because", pa.string()),
                        pa.field("first", pa.int32(), nullable=False),
                        pa.field("count", pa.int32(), nullable=False),
                    ]
                )
            ),
        ),
        pa.field("shadow_of", pa.string()),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
    ]
)
"""One answered request a row. `features`: what the model knew of the member; null where it knew nothing.
`fallback`: what stood in for the version's own scores; null: nothing. `made_at`: before `time` for a page
that was kept. `rows`: those of a home page, with the titles `first` to `first` + `count` - 1; `because`:
the title or genre a row is for. Exposures of earlier releases have nulls in these three.
`shadow_of`: the exposure that this one, which nobody saw, stands behind; null for what was shown.
"""

PARTS_A_FOLDER = 1000
TAIL_PARTS = 1000
"""Most parts `tail` opens: about two seconds of work, and half an hour of traffic."""

_COMMIT = b"matinee.offsets"
_TEXTS = ("exposure_id", "member_id", "surface", "model_version", "cell", "answer")


def parse(payload: bytes) -> dict[str, Any]:
    """A row of `EXPOSURE_SCHEMA`, without partition and offset, from a message of the topic.

    Raises:
        InvalidInput: not a JSON object of the fields and types of an exposure.
    """
    try:
        message = orjson.loads(payload)
        row: dict[str, Any] = {name: message[name] for name in _TEXTS}
        for name, value in row.items():
            if not isinstance(value, str):
                raise InvalidInput(f"exposure: {name} is {value!r}; a string is expected")
        row["time"] = int(message["time"])
        row["titles"] = _titles(message["titles"])
        row["features"] = [(str(name), _number(value)) for name, value in message["features"].items()]
        row["latency_ms"] = _number(message.get("latency_ms"))
        row["fallback"] = _text_or_null(message, "fallback")
        row["made_at"] = None if message.get("made_at") is None else int(message["made_at"])
        row["rows"] = message.get("rows") and [
            {
                "kind": str(r["kind"]),
                "because": _text_or_null(r, "because"),
                "first": int(r["first"]),
                "count": int(r["count"]),
            }
            for r in message["rows"]
        ]
        row["shadow_of"] = None if message.get("shadow_of") is None else str(message["shadow_of"])
    except InvalidInput:
        raise
    except (ValueError, TypeError, AttributeError, KeyError) as failure:
        raise InvalidInput(f"exposure: {type(failure).__name__} {failure}") from None
    return row


def _titles(told: Any) -> list[dict[str, Any]]:
    """Titles from columns in the order of their positions; earlier releases told of each by itself."""
    if isinstance(told, Mapping):
        pairs = zip(told["title_id"], told["score"], strict=True)
        told = [{"title_id": id_, "position": at, "score": score} for at, (id_, score) in enumerate(pairs)]
    return [
        {
            "title_id": str(each["title_id"]),
            "position": int(each["position"]),
            "score": _number(each["score"]),
        }
        for each in told
    ]


def _text_or_null(message: Mapping[str, Any], name: str) -> str | None:
    value = message.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"exposure: {name} is {value!r}; a string or null is expected")
    return value


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"exposure: {value!r} stands where a number is expected")
    return float(value)


class Seen:
    """The ids met last: a sender that did not hear of its success sends a batch again, soon.

    Args:
        limit: most ids remembered.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ids: dict[str, None] = {}

    def first(self, exposure_id: str) -> bool:
        """Whether it is met for the first time; remembers it at the cost of the oldest."""
        if exposure_id in self._ids:
            return False
        self._ids[exposure_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]
        return True


class ExposureLake:
    """The parts under one folder.

    Args:
        root: the folder; made with the first part.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._next = 1 + max((_part_number(path) for path in self._last_folder()), default=-1)
        self._total = self._commit()["total"] if self._next else 0

    @property
    def total(self) -> int:
        """How many exposures are in the lake."""
        return self._total

    def offsets(self, cluster: str) -> dict[int, int]:
        """The first offset not in the lake, by partition; empty for a cluster id it does not follow."""
        if self._next == 0:
            return {}
        commit = self._commit()
        if commit["cluster"] != cluster:
            return {}
        return {int(partition): int(offset) for partition, offset in commit["offsets"].items()}

    def append(self, rows: Iterable[Mapping[str, Any]], *, cluster: str, offsets: Mapping[int, int]) -> None:
        """Commit rows together with the offsets they end at.

        Args:
            rows: of `EXPOSURE_SCHEMA`; may be empty where offsets moved over messages without a row.
            cluster: id of the Kafka cluster that the offsets belong to.
            offsets: the first offset after the rows, for every partition.

        Raises:
            StorageError: the part cannot be written, or another writer has taken its number.
        """
        table = pa.Table.from_pylist(list(rows), schema=EXPOSURE_SCHEMA)
        total = self._total + table.num_rows
        ends = {str(partition): offset for partition, offset in offsets.items()}
        commit = orjson.dumps({"cluster": cluster, "offsets": ends, "total": total})
        path = self._path(self._next)
        draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table.replace_schema_metadata({_COMMIT: commit}), draft, compression="zstd")
            try:
                path.hardlink_to(draft)
            finally:
                draft.unlink()
        except FileExistsError:
            raise StorageError(f"exposures part {path} exists: another monitor writes this lake") from None
        except OSError as failure:
            raise StorageError(f"exposures part {path}: {failure}") from failure
        self._next += 1
        self._total = total

    def tail(self, rows: int) -> pa.Table:
        """The last parts that hold at least `rows` rows together, in the order of arrival.

        Fewer rows where the lake has no more, or where the last `TAIL_PARTS` parts do not hold them.
        """
        tables: list[pa.Table] = []
        found = 0
        for number in range(self._next - 1, max(-1, self._next - 1 - TAIL_PARTS), -1):
            tables.append(pq.read_table(self._path(number), schema=EXPOSURE_SCHEMA))
            found += tables[-1].num_rows
            if found >= rows:
                break
        return pa.concat_tables(reversed(tables)) if tables else EXPOSURE_SCHEMA.empty_table()

    def read(self) -> pa.Table:
        """Everything, in the order of arrival."""
        tables = [pq.read_table(self._path(n), schema=EXPOSURE_SCHEMA) for n in range(self._next)]
        return pa.concat_tables(tables) if tables else EXPOSURE_SCHEMA.empty_table()

    def _commit(self) -> dict[str, Any]:
        commit: dict[str, Any] = orjson.loads(pq.read_schema(self._path(self._next - 1)).metadata[_COMMIT])
        return commit

    def _path(self, number: int) -> Path:
        return self._root / f"{number // PARTS_A_FOLDER:06d}" / f"{number:09d}.parquet"

    def _last_folder(self) -> Iterable[Path]:
        folders = sorted(self._root.glob("[0-9]" * 6), reverse=True)
        parts = (list(folder.glob("[0-9]*.parquet")) for folder in folders)
        return next(itertools.filterfalse(lambda found: not found, parts), [])


def _part_number(path: Path) -> int:
    return int(path.stem)
