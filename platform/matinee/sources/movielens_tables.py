"""Reads MovieLens tables in their three layouts (parquet, dat, csv) into a `Dataset`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa

from matinee.errors import InvalidInput
from matinee.schema import Catalogue
from matinee.sources.dataset import MEMBER_SCHEMA, Dataset
from matinee.sources.ratings import catalogue, rating_events
from matinee.sources.titles import first_day, parse_genres, parse_title

OCCUPATIONS_1M = (
    *("other", "educator", "artist", "clerical", "student (college)", "customer service"),
    *("doctor", "executive", "farmer", "homemaker", "student (K-12)", "lawyer", "programmer", "retired"),
    *("sales", "scientist", "self-employed", "engineer", "tradesman", "unemployed", "writer"),
)
"""Names of the occupation codes 0 to 20 of MovieLens 1M."""


def read_tables(name: str, folder: Path, *, layout: str, prefix: str) -> Dataset:
    """The data set whose files lie in `folder`.

    Raises:
        InvalidInput: a file cannot be read, or a rating names a title that the titles' file lacks.
    """
    ratings, titles, members = {"parquet": _parquet, "dat": _dat, "csv": _csv}[layout](folder)
    known = pl.Series(titles.title_ids)
    strange = ratings.filter(~pl.col("title").is_in(known.implode()))
    if strange.height:
        raise InvalidInput(f"{folder}: a rating names title {strange['title'][0]!r}, which no title row has")
    return Dataset(name=name, catalogue=titles, events=rating_events(prefix, ratings), members=members)


def _parquet(folder: Path) -> tuple[pl.DataFrame, Catalogue, pa.Table]:
    ratings, items, users = (
        _read(folder / f"MovieLens100k_{part}.parquet.brotli") for part in ("data", "items", "users")
    )
    after_link = items.columns[items.columns.index("IMDb_URL") + 1 :]
    genres = [genre for genre in after_link if genre != "unknown"]
    flags = items.select(genres).to_numpy() == 1
    dates = items["release_date"].str.to_date("%d-%b-%Y", strict=False)
    titles = catalogue(
        title_ids=items["movie_id"].cast(pl.String).to_list(),
        names=[parse_title(text)[0] for text in items["movie_title"]],
        genres=[[genre for genre, on in zip(genres, row, strict=True) if on] for row in flags],
        release_dates=dates.to_list(),
    )
    members = _members(
        users["user_id"].cast(pl.String), users["age"], users["gender"], users["occupation"].to_list()
    )
    return _ratings(ratings, "user_id", "movie_id", "rating", "timestamp"), titles, members


def _dat(folder: Path) -> tuple[pl.DataFrame, Catalogue, pa.Table]:
    integers = {"member": pl.Int64, "title": pl.Int64, "rating": pl.Float64, "seconds": pl.Int64}
    ratings = _read_dat(folder / "ratings.dat", integers)
    movies = _read_dat(folder / "movies.dat", {"title": pl.Int64, "name": pl.String, "genres": pl.String})
    people = {"member": pl.Int64, "gender": pl.String, "age": pl.Int64, "occupation": pl.Int64}
    users = _read_dat(folder / "users.dat", {**people, "zip": pl.String})
    occupations = [OCCUPATIONS_1M[code] if 0 <= code < 21 else None for code in users["occupation"]]
    members = _members(users["member"].cast(pl.String), users["age"], users["gender"], occupations)
    titles = _titles(movies["title"], movies["name"], movies["genres"])
    return _ratings(ratings, "member", "title", "rating", "seconds"), titles, members


def _csv(folder: Path) -> tuple[pl.DataFrame, Catalogue, None]:
    kinds = {"userId": pl.Int64, "movieId": pl.Int64, "rating": pl.Float64, "timestamp": pl.Int64}
    ratings = _read_csv(folder, "ratings.csv", kinds)
    movies = _read_csv(folder, "movies.csv", {"movieId": pl.Int64, "title": pl.String, "genres": pl.String})
    titles = _titles(movies["movieId"], movies["title"], movies["genres"])
    return _ratings(ratings, "userId", "movieId", "rating", "timestamp"), titles, None


def _titles(ids: pl.Series, names: pl.Series, genres: pl.Series) -> Catalogue:
    parsed = [parse_title(text or "") for text in names]
    return catalogue(
        title_ids=ids.cast(pl.String).to_list(),
        names=[name for name, _ in parsed],
        genres=[parse_genres(text) for text in genres],
        release_dates=[first_day(year) for _, year in parsed],
    )


def _ratings(table: pl.DataFrame, member: str, title: str, value: str, seconds: str) -> pl.DataFrame:
    return table.select(
        member=pl.col(member).cast(pl.String),
        title=pl.col(title).cast(pl.String),
        value=pl.col(value).cast(pl.Float64),
        seconds=pl.col(seconds).cast(pl.Int64),
    )


def _members(
    ids: pl.Series, ages: pl.Series, genders: pl.Series, occupations: Sequence[str | None]
) -> pa.Table:
    columns = [ids.to_list(), ages.to_list(), genders.to_list(), occupations]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, MEMBER_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=MEMBER_SCHEMA)


def _read(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as failure:
        raise InvalidInput(f"{path} is not readable as Parquet: {failure}") from None


def _read_dat(path: Path, kinds: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    """Fields are parted by two colons, text is Latin-1, and there is no header."""
    text = path.read_bytes().decode("latin-1").replace("::", "\t")
    for number, line in enumerate(text.splitlines()[:1], start=1):
        if line.count("\t") != len(kinds) - 1:
            raise InvalidInput(f"{path} line {number}: {len(kinds)} fields parted by '::' are expected")
    try:
        return pl.read_csv(
            text.encode(), separator="\t", has_header=False, schema=dict(kinds), quote_char=None
        )
    except pl.exceptions.PolarsError as failure:
        raise InvalidInput(f"{path} is not readable: {_first_line(failure)}") from None


def _read_csv(folder: Path, file: str, kinds: Mapping[str, type[pl.DataType]]) -> pl.DataFrame:
    path = folder / file
    if not path.is_file():
        path = folder / f"{file}.gz"
    try:
        return pl.read_csv(path, schema_overrides=dict(kinds), columns=list(kinds))
    except (pl.exceptions.PolarsError, OSError) as failure:
        raise InvalidInput(f"{path} is not readable: {_first_line(failure)}") from None


def _first_line(failure: Exception) -> str:
    return str(failure).strip().splitlines()[0]
