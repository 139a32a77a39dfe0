"""Own data from Parquet or CSV files whose columns are declared, not guessed."""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import polars as pl

from matinee.errors import InvalidInput, NotFound
from matinee.schema import EVENT_SCHEMA_VERSION, Catalogue, EventType
from matinee.sources.dataset import Dataset
from matinee.sources.ratings import catalogue, fit_events

T = TypeVar("T")

_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_SUFFIXES = (".parquet", ".csv", ".csv.gz")


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which column of the events' file says what. None: the file does not say it."""

    member: str
    """Member ids: text or integers."""
    title: str
    """Title ids: text or integers; may be empty for a search."""
    time: str
    """When it happened; Parquet timestamps are taken as they are (without a zone: UTC)."""
    time_format: str = "s"
    """s, ms, us: numbers since the epoch; iso: ISO 8601 text, UTC where no offset is given; anything
    else: a strptime pattern such as "%d/%m/%Y %H:%M", UTC where it has no %z."""
    type: str | None = None
    """The event's type; None: every row is a `constant_type`."""
    constant_type: EventType = EventType.PLAY
    """The type of every row where `type` is None."""
    types: Mapping[str, EventType] = field(default_factory=dict)
    """The file's own words for types; words left out must be Matinee's."""
    value: str | None = None
    """Stars of a rate, seconds of a play or a stop."""
    event_id: str | None = None
    """Unique ids; None: made from the data set's name and the row's number."""
    session: str | None = None
    surface: str | None = None
    position: str | None = None


@dataclass(frozen=True, kw_only=True)
class TitleColumns:
    """Which column of the titles' file says what. None: the file does not say it."""

    title: str
    """Title ids, unique."""
    name: str
    genres: str | None = None
    """Lists, or texts parted by `separator`."""
    cast: str | None = None
    """As `genres`."""
    keywords: str | None = None
    """As `genres`."""
    separator: str = "|"
    release_date: str | None = None
    """A date, or text as YYYY-MM-DD or YYYY."""
    language: str | None = None
    maturity: str | None = None
    """The least age in years the title is suitable for."""


def load(
    name: str,
    events: Path,
    columns: Columns,
    *,
    titles: Path | None = None,
    title_columns: TitleColumns | None = None,
) -> Dataset:
    """Read events and titles; events come out by time, ties in file order.

    Args:
        name: the data set's name; begins the event ids that are made.
        events: a .parquet, .csv or .csv.gz file; CSV is UTF-8 with a header.
        columns: what its columns mean.
        titles: such a file of titles; None: a title per distinct id, known by its id alone.
        title_columns: what its columns mean; wanted where `titles` is given.

    Raises:
        NotFound: a file does not exist.
        InvalidInput: a column is missing or a value is not accepted; names the file, row (the first data
            row is 1) and value.
    """
    table = _read(events)
    rows = _events(name, _Reader(events, table), columns)
    if titles is None:
        ids = rows["title_id"].drop_nulls().unique(maintain_order=True).to_list()
        known = catalogue(title_ids=ids, names=ids, genres=[[]] * len(ids), release_dates=[None] * len(ids))
    elif title_columns is None:
        raise InvalidInput(f"titles file {titles} is given without title_columns, which say what it holds")
    else:
        known = _titles(_Reader(titles, _read(titles)), title_columns)
        strange = rows["title_id"].is_not_null() & ~rows["title_id"].is_in(known.title_ids)
        if strange.any():
            row = int(strange.arg_max() or 0)
            raise InvalidInput(f"{events} row {row + 1}: title {rows['title_id'][row]!r} is not in {titles}")
    dataset = Dataset(
        name=name, catalogue=known, events=fit_events(rows.sort("event_time", maintain_order=True))
    )
    dataset.validate()
    return dataset


class _Reader:
    """Columns of one file, converted with errors that name file, row, column and value."""

    def __init__(self, path: Path, table: pl.DataFrame) -> None:
        self._path = path
        self.table = table

    def __len__(self) -> int:
        return self.table.height

    def column(self, name: str) -> pl.Series:
        if name not in self.table.columns:
            raise InvalidInput(
                f"{self._path} has no column {name!r}; its columns: {', '.join(self.table.columns)}"
            )
        return self.table[name]

    def text(self, name: str, *, required: bool = False) -> pl.Series:
        values = self.column(name)
        if values.dtype.is_float():
            self.check(name, values.is_not_null() & (values != values.floor()), "text or whole numbers")
            values = values.cast(pl.Int64)
        try:
            texts = values.cast(pl.String)
        except pl.exceptions.PolarsError:
            raise InvalidInput(f"{self._path}: column {name} is {values.dtype}; text is accepted") from None
        texts = texts.set(texts == "", None)
        if required:
            self.check(name, texts.is_null(), "a text that is not empty")
        return texts

    def number(self, name: str, kind: type[pl.DataType], accepted: str) -> pl.Series:
        values = self.column(name)
        if values.dtype == pl.String:
            values = values.str.strip_chars()
            values = values.set(values == "", None)
        numbers = values.cast(pl.Float64, strict=False)
        bad = values.is_not_null() & (numbers.is_null() | ~numbers.is_finite())
        if kind().is_integer():
            bad |= (numbers != numbers.floor()).fill_null(False)
        self.check(name, bad, accepted)
        return values.cast(kind, strict=False) if values.dtype.is_integer() else numbers.cast(kind)

    def check(self, name: str, bad: pl.Series, accepted: str) -> None:
        if bad.any():
            row = int(bad.fill_null(False).arg_max() or 0)
            value = self.table[name][row]
            raise InvalidInput(
                f"{self._path} row {row + 1}: column {name} is {value!r}; accepted: {accepted}"
            )

    def parsed(self, name: str, parse: Callable[[object], T | None], accepted: str) -> list[T | None]:
        out = []
        for row, value in enumerate(self.column(name).to_list()):
            try:
                out.append(None if value is None or value == "" else parse(value))
            except (ValueError, TypeError, OverflowError):
                raise InvalidInput(
                    f"{self._path} row {row + 1}: column {name} is {value!r}; accepted: {accepted}"
                ) from None
        return out


def _events(name: str, reader: _Reader, columns: Columns) -> pl.DataFrame:
    times = _times(reader, columns.time, columns.time_format)
    kinds = _kinds(reader, columns)
    titles = reader.text(columns.title)
    searches = kinds == EventType.SEARCH.value
    reader.check(columns.title, titles.is_null() & ~searches, "a title; only a search may have none")
    if columns.event_id is None:
        ids = pl.Series([f"{name}-{row}" for row in range(1, len(reader) + 1)], dtype=pl.String)
    else:
        ids = reader.text(columns.event_id, required=True)
        reader.check(columns.event_id, ~ids.is_first_distinct(), "an id that no earlier row has")
    rows = {
        "schema_version": pl.repeat(EVENT_SCHEMA_VERSION, len(reader), dtype=pl.Int16, eager=True),
        "event_id": ids,
        "type": kinds,
        "member_id": reader.text(columns.member, required=True),
        "title_id": titles,
        "event_time": times,
        "ingest_time": times,
    }
    for own, what in (("session", columns.session), ("surface", columns.surface)):
        if what is not None:
            rows[own] = reader.text(what)
    if columns.position is not None:
        rows["position"] = reader.number(columns.position, pl.Int32, "a whole number from 0")
        reader.check(columns.position, rows["position"] < 0, "a whole number from 0")
    if columns.value is not None:
        rows["value"] = reader.number(columns.value, pl.Float64, "a finite number")
    return pl.DataFrame(rows)


def _times(reader: _Reader, name: str, time_format: str) -> pl.Series:
    values = reader.column(name)
    if isinstance(values.dtype, pl.Datetime):
        times = values.dt.cast_time_unit("us")
        zoned = values.dtype.time_zone is not None
        times = times.dt.convert_time_zone("UTC") if zoned else times.dt.replace_time_zone("UTC")
    elif isinstance(values.dtype, pl.Date):
        times = values.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    elif time_format in _UNITS:
        accepted = f"a number since the epoch in {time_format} (time_format)"
        if values.dtype.is_integer():
            micros = values.cast(pl.Int64) * _UNITS[time_format]
        else:
            micros = reader.number(name, pl.Float64, accepted) * _UNITS[time_format]
        times = micros.cast(pl.Int64).cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    elif time_format == "iso":
        parsed = reader.parsed(name, _iso, "ISO 8601, such as 2024-05-01T20:15:00Z")
        times = pl.Series(parsed, dtype=pl.Datetime("us", "UTC"))
    elif "%" in time_format:
        patterned = reader.parsed(
            name, lambda value: _utc(datetime.datetime.strptime(str(value), time_format)), time_format
        )
        times = pl.Series(patterned, dtype=pl.Datetime("us", "UTC"))
    else:
        raise InvalidInput(f"time_format is {time_format!r}; accepted: s, ms, us, iso or a strptime pattern")
    reader.check(name, times.is_null() | (times.dt.epoch("us") < 0), "a time from 1970 on")
    return times


def _kinds(reader: _Reader, columns: Columns) -> pl.Series:
    if columns.type is None:
        return pl.repeat(columns.constant_type.value, len(reader), dtype=pl.String, eager=True)
    words = {kind.value: kind.value for kind in EventType}
    words |= {word: kind.value for word, kind in columns.types.items()}
    kinds = reader.text(columns.type).replace_strict(words, default=None, return_dtype=pl.String)
    reader.check(columns.type, kinds.is_null(), ", ".join(words))
    return kinds


def _titles(reader: _Reader, columns: TitleColumns) -> Catalogue:
    ids = reader.text(columns.title, required=True)
    reader.check(columns.title, ~ids.is_first_distinct(), "an id that no earlier row has")
    dates: list[datetime.date | None] = [None] * len(reader)
    if columns.release_date is not None:
        dates = reader.parsed(columns.release_date, _date, "a date as YYYY-MM-DD or YYYY")
    maturity = None
    if columns.maturity is not None:
        maturity = reader.number(columns.maturity, pl.Int16, "a whole number of years").to_list()
    return catalogue(
        title_ids=ids.to_list(),
        names=reader.text(columns.name, required=True).to_list(),
        genres=_lists(reader, columns.genres, columns.separator),
        release_dates=dates,
        languages=None if columns.language is None else reader.text(columns.language).to_list(),
        maturity=maturity,
        cast=_lists(reader, columns.cast, columns.separator),
        keywords=_lists(reader, columns.keywords, columns.separator),
    )


def _lists(reader: _Reader, name: str | None, separator: str) -> list[list[str]]:
    if name is None:
        return [[] for _ in range(len(reader))]
    values = reader.column(name)
    if isinstance(values.dtype, pl.List):
        return [[str(one) for one in row or [] if one is not None] for row in values.to_list()]
    texts = reader.text(name).to_list()
    return [[part.strip() for part in (text or "").split(separator) if part.strip()] for text in texts]


def _iso(value: object) -> datetime.datetime:
    return _utc(datetime.datetime.fromisoformat(str(value).strip()))


def _utc(moment: datetime.datetime) -> datetime.datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _date(value: object) -> datetime.date:
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, datetime.date):
        return value
    text = str(value).strip()
    return (
        datetime.date(int(text), 1, 1) if re.fullmatch(r"\d{4}", text) else datetime.date.fromisoformat(text)
    )


def _read(path: Path) -> pl.DataFrame:
    if not path.name.endswith(_SUFFIXES):
        raise InvalidInput(f"file {path} is not one of {', '.join(_SUFFIXES)}")
    if not path.is_file():
        raise NotFound(f"file {path} does not exist")
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as failure:
        raise InvalidInput(f"{path} is not readable: {str(failure).strip().splitlines()[0]}") from None


def load_declared(path: Path) -> Dataset:
    """The data set that a TOML file declares; its paths are relative to it.

    Keys: `name`, `events` and a table `columns` (`Columns`); with titles also `titles` and a table
    `title_columns` (`TitleColumns`).

    Raises:
        NotFound: a file does not exist.
        InvalidInput: the declaration is not TOML, lacks a key or has one too many; or as `load`.
    """
    try:
        declared = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise NotFound(f"declaration {path} does not exist") from None
    except tomllib.TOMLDecodeError as failure:
        raise InvalidInput(f"declaration {path}: {failure}") from None
    try:
        columns = declared["columns"]
        kinds = {word: EventType(kind) for word, kind in columns.pop("types", {}).items()}
        constant = EventType(columns.pop("constant_type", EventType.PLAY))
        titles = declared.get("titles")
        return load(
            declared.get("name", path.stem),
            path.parent / declared["events"],
            Columns(**columns, types=kinds, constant_type=constant),
            titles=path.parent / titles if titles else None,
            title_columns=TitleColumns(**declared["title_columns"]) if "title_columns" in declared else None,
        )
    except KeyError as missing:
        raise InvalidInput(f"declaration {path} lacks {missing}") from None
    except (TypeError, ValueError) as failure:
        if isinstance(failure, InvalidInput):
            raise
        raise InvalidInput(f"declaration {path}: {failure}") from None
