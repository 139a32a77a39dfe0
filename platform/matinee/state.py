"""The state database: what was decided, as rows. SQLite in the home unless a URL names another.

A decision is a row with who made it, why and when.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from matinee.config import Settings
from matinee.errors import InvalidInput, StorageError, Unavailable


def decisions(name: str, *columns: sql.Column[Any]) -> sql.Table:
    """A table of decisions: `id`, the columns, and `who`, `why` and `time_us` (microseconds)."""
    return sql.Table(
        name,
        sql.MetaData(),
        sql.Column("id", sql.Integer, primary_key=True, autoincrement=True),
        *columns,
        sql.Column("who", sql.String(256), nullable=False),
        sql.Column("why", sql.Text, nullable=False),
        sql.Column("time_us", sql.BigInteger, nullable=False),
    )


class StateDatabase:
    """Some tables of the state database; those that do not exist are made.

    Args:
        settings: `state_url` is read.

    Raises:
        StorageError: the data home cannot be written.
        Unavailable: the database does not answer.
    """

    def __init__(self, settings: Settings, *tables: sql.Table) -> None:
        url = sql.make_url(settings.state_url)
        self._address = url.render_as_string(hide_password=True)
        options: dict[str, object] = {}
        if url.get_backend_name() == "sqlite":
            options["connect_args"] = {"timeout": 5.0}
            _make_folder(url.database)
        self._engine = sql.create_engine(url, **options)
        with self.connection() as connection:
            for table in tables:
                connection.execute(sql.schema.CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    connection.execute(sql.schema.CreateIndex(index, if_not_exists=True))

    @contextmanager
    def connection(self) -> Iterator[sql.Connection]:
        """One transaction: committed at the end of the block, rolled back where it raises.

        Raises:
            IntegrityError: a row breaks a unique index.
            Unavailable: the database does not answer.
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as failure:
            raise Unavailable(f"state database {self._address}: {str(failure).splitlines()[0]}") from failure

    def decide(self, table: sql.Table, *, who: str, why: str, **values: object) -> int:
        """Add a row to a table of `decisions`; returns its time, microseconds.

        Raises:
            InvalidInput: an empty name or reason.
            Unavailable: the database does not answer.
        """
        for name, text in (("who", who), ("why", why)):
            if not text.strip():
                raise InvalidInput(f"{name} of a decision is empty; a non-empty text is needed")
        now = time.time_ns() // 1000
        with self.connection() as connection:
            connection.execute(table.insert().values(who=who, why=why, time_us=now, **values))
        return now

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()


def _make_folder(database: str | None) -> None:
    if not database or database == ":memory:":
        return
    try:
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise StorageError(f"data home {Path(database).parent}: {failure.strerror}") from failure
