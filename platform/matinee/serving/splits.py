"""Traffic splits as rows: each change is a new row with who, when and why; none is ever rewritten."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sql
from sqlalchemy.exc import SQLAlchemyError

from matinee.config import Settings
from matinee.errors import InvalidInput, StorageError, Unavailable

_TABLE = sql.Table(
    "splits",
    sql.MetaData(),
    sql.Column("id", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("surface", sql.String(256), nullable=False, index=True),
    sql.Column("weights", sql.Text, nullable=False),
    sql.Column("who", sql.String(256), nullable=False),
    sql.Column("why", sql.Text, nullable=False),
    sql.Column("time_us", sql.BigInteger, nullable=False),
)


@dataclass(frozen=True, kw_only=True)
class Split:
    """One change of a surface's split.

    Args:
        surface: the place in the product the split is for.
        weights: version to share; shares sum to 1. Empty: all traffic goes to the champion.
        who: who decided.
        why: the reason given.
        time: microseconds since the epoch.
    """

    surface: str
    weights: Mapping[str, float]
    who: str
    why: str
    time: int


class Splits:
    """The splits of every surface, in the state database.

    Args:
        settings: `state_url` is read.

    Raises:
        StorageError: the data home cannot be written.
        Unavailable: the database does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        url = sql.make_url(settings.state_url)
        self._address = url.render_as_string(hide_password=True)
        options: dict[str, object] = {}
        if url.get_backend_name() == "sqlite":
            options["connect_args"] = {"timeout": 5.0}
            _make_folder(url.database)
        self._engine = sql.create_engine(url, **options)
        with self._connection() as connection:
            connection.execute(sql.schema.CreateTable(_TABLE, if_not_exists=True))

    def set(self, surface: str, weights: Mapping[str, float], *, who: str, why: str) -> Split:
        """Record a split; it takes effect in running replicas within their polling interval.

        Args:
            surface: the place in the product.
            weights: version to weight, any positive scale; empty: back to the champion.
            who: who decides; not empty.
            why: the reason; not empty.

        Raises:
            InvalidInput: an empty name or reason, a weight negative or not finite, or all of them 0.
        """
        for name, text in (("surface", surface), ("who", who), ("why", why)):
            if not text.strip():
                raise InvalidInput(f"{name} of a split is empty; a non-empty text is needed")
        split = Split(surface=surface, weights=shares(weights), who=who, why=why, time=time.time_ns() // 1000)
        with self._connection() as connection:
            connection.execute(
                _TABLE.insert().values(
                    surface=surface, weights=json.dumps(split.weights), who=who, why=why, time_us=split.time
                )
            )
        return split

    def current(self, surface: str) -> Mapping[str, float]:
        """Version to share; empty where none was set or the last change went back to the champion."""
        rows = self._rows(_TABLE.c.surface == surface, newest=1)
        return rows[0].weights if rows else {}

    def live(self) -> dict[str, Mapping[str, float]]:
        """The current, non-empty split of every surface."""
        latest = sql.select(sql.func.max(_TABLE.c.id)).group_by(_TABLE.c.surface)
        return {row.surface: row.weights for row in self._rows(_TABLE.c.id.in_(latest)) if row.weights}

    def history(self, surface: str) -> list[Split]:
        """Every change of a surface, newest first."""
        return self._rows(_TABLE.c.surface == surface)

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    def _rows(self, where: sql.ColumnElement[bool], newest: int | None = None) -> list[Split]:
        query = sql.select(_TABLE).where(where).order_by(_TABLE.c.id.desc()).limit(newest)
        with self._connection() as connection:
            return [
                Split(
                    surface=row.surface,
                    weights=json.loads(row.weights),
                    who=row.who,
                    why=row.why,
                    time=row.time_us,
                )
                for row in connection.execute(query)
            ]

    @contextmanager
    def _connection(self) -> Iterator[sql.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as failure:
            raise Unavailable(f"state database {self._address}: {str(failure).splitlines()[0]}") from failure


def shares(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights scaled to sum to 1, arms of weight 0 left out; empty stays empty.

    Raises:
        InvalidInput: a weight is negative or not finite, or all of them are 0.
    """
    for version, weight in weights.items():
        if not math.isfinite(weight) or weight < 0:
            raise InvalidInput(f"weight of version {version} is {weight}; accepted: finite, from 0 up")
    total = sum(weights.values())
    if weights and not 0 < total < math.inf:
        raise InvalidInput(f"weights {dict(weights)} sum to {total}; at least one must be above 0")
    return {version: weight / total for version, weight in weights.items() if weight > 0}


def _make_folder(database: str | None) -> None:
    if not database or database == ":memory:":
        return
    try:
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise StorageError(f"data home {Path(database).parent}: {failure.strerror}") from failure
