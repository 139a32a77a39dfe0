"""What titles are on offer as rows: a list of windows, and above it what was decided of single titles.

Each change is a new row with who, when and why; none is ever rewritten. The newest list counts, and of each
title the newest row of its own, which stands above every list until it is cleared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sql
from pyarrow import csv

from matinee.config import Settings
from matinee.errors import InvalidInput
from matinee.schema import TIMESTAMP
from matinee.serving.availability import NEVER, WINDOW_SCHEMA, Listed, checked, time_of
from matinee.state import StateDatabase, decisions

_LIST = ""
"""Stands for the title of a list."""

_TABLE = decisions(
    "licences",
    sql.Column("title_id", sql.String(256), nullable=False, index=True),
    sql.Column("windows", sql.LargeBinary, nullable=True),
)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One decision.

    Args:
        title_id: None: a whole list.
        windows: how many it has; None: what was set for the title by itself was cleared.
        who: who decided.
        why: the reason given.
        time: microseconds since the epoch.
    """

    title_id: str | None
    windows: int | None
    who: str
    why: str
    time: int


class Licences:
    """The windows in the state database.

    Raises:
        StorageError: the data home cannot be written.
        Unavailable: the database does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._database = StateDatabase(settings, _TABLE)

    def replace(self, windows: pa.Table, *, who: str, why: str) -> None:
        """Put another list in force, whole.

        Args:
            windows: as `availability.checked` takes them; none: every title is on offer everywhere.

        Raises:
            InvalidInput: as `availability.checked`; an empty name or reason.
        """
        self._database.decide(_TABLE, title_id=_LIST, windows=_written(checked(windows)), who=who, why=why)

    def set(self, title_id: str, windows: pa.Table, *, who: str, why: str) -> None:
        """Decide about one title, whatever the list says.

        Args:
            windows: of this title alone; none: it is on offer nowhere.

        Raises:
            InvalidInput: as `replace`, or a window of another title.
        """
        found = checked(windows)
        others = [each for each in found["title_id"].to_pylist() if each != title_id]
        if others:
            raise InvalidInput(f"a window of title {others[0]!r} among those of {title_id!r}")
        nowhere = pa.table([[title_id], [None], [None], [NEVER]], schema=WINDOW_SCHEMA)
        held = _written(found if len(found) else nowhere)
        self._database.decide(_TABLE, title_id=_named(title_id), windows=held, who=who, why=why)

    def clear(self, title_id: str, *, who: str, why: str) -> None:
        """Leave a title to the list again.

        Raises:
            InvalidInput: an empty title, name or reason.
        """
        self._database.decide(_TABLE, title_id=_named(title_id), windows=None, who=who, why=why)

    def newest(self) -> int:
        """Number of the newest change; 0 where there is none."""
        with self._database.connection() as connection:
            return connection.execute(sql.select(sql.func.max(_TABLE.c.id))).scalar() or 0

    def listed(self) -> Listed:
        """What is in force."""
        newest = sql.select(sql.func.max(_TABLE.c.id)).group_by(_TABLE.c.title_id)
        with self._database.connection() as connection:
            rows = connection.execute(sql.select(_TABLE).where(_TABLE.c.id.in_(newest))).all()
        own = {row.title_id: _read(row.windows) for row in rows if row.windows is not None}
        listed = own.pop(_LIST, WINDOW_SCHEMA.empty_table())
        others = pc.invert(pc.is_in(listed["title_id"], pa.array(list(own), pa.string())))
        windows = pa.concat_tables([listed.filter(others), *own.values()])
        return Listed(number=max((row.id for row in rows), default=0), windows=windows)

    def history(self, title_id: str | None = None) -> Sequence[Change]:
        """Every change, newest first; of one title where it is named."""
        query = sql.select(_TABLE).order_by(_TABLE.c.id.desc())
        if title_id is not None:
            query = query.where(_TABLE.c.title_id == title_id)
        with self._database.connection() as connection:
            return [
                Change(
                    title_id=row.title_id or None,
                    windows=None if row.windows is None else len(_read(row.windows)),
                    who=row.who,
                    why=row.why,
                    time=row.time_us,
                )
                for row in connection.execute(query)
            ]

    def close(self) -> None:
        """Release the connections."""
        self._database.close()


def windows_of(title_id: str, countries: Sequence[str], *, begin: str | None, end: str | None) -> pa.Table:
    """One window of a title in each country; in all of them where none is named.

    Args:
        begin: date or time, ISO 8601, UTC where it names no zone; None: no beginning.
        end: likewise.

    Raises:
        InvalidInput: a time is none; or as `availability.checked`.
    """
    places: list[str | None] = [*countries] or [None]
    times = [[time_of(text)] * len(places) for text in (begin, end)]
    return checked(pa.table([[title_id] * len(places), places, *times], schema=WINDOW_SCHEMA))


def read_windows(path: Path) -> pa.Table:
    """The windows of a CSV or Parquet file.

    Raises:
        InvalidInput: it cannot be read, or as `availability.checked`.
    """
    try:
        if path.suffix == ".parquet":
            return checked(pq.read_table(path))
        texts = dict.fromkeys(WINDOW_SCHEMA.names, pa.string())
        options = csv.ConvertOptions(
            column_types=texts, strings_can_be_null=True, quoted_strings_can_be_null=True
        )
        found = csv.read_csv(path, convert_options=options)
    except (OSError, pa.ArrowInvalid) as failure:
        raise InvalidInput(f"file {path}: {failure}") from None
    for name in ("available_from", "available_until"):
        if name in found.column_names:
            times = pa.array([time_of(text) for text in found[name].to_pylist()], TIMESTAMP)
            found = found.set_column(found.column_names.index(name), name, times)
    return checked(found)


def _named(title_id: str) -> str:
    if not title_id.strip():
        raise InvalidInput("title of a change of what is on offer is empty; an id is needed")
    return title_id


def _written(windows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, WINDOW_SCHEMA, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(windows)
    return bytes(sink.getvalue().to_pybytes())


def _read(held: bytes) -> pa.Table:
    with pa.ipc.open_stream(held) as reader:
        return reader.read_all()
