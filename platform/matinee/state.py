"""The state database: what was decided, as rows. SQLite in the home unless a URL names another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from matinee.config import Settings
from matinee.errors import StorageError, Unavailable


def signed() -> tuple[sql.Column[Any], ...]:
    """The columns that say of a row who decided it, why, and when (microseconds since the epoch)."""
    return (
        sql.Column("who", sql.String(256), nullable=False),
        sql.Column("why", sql.Text, nullable=False),
        sql.Column("time_us", sql.BigInteger, nullable=False),
    )


class StateDatabase:
    """Some tables of the state database; those that do not exist are made.

    Args:
        settings: `state_url` is read.
        tables: of one `MetaData`.

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
