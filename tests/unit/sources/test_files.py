import datetime
import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from matinee.errors import InvalidInput, NotFound
from matinee.schema import EventType
from matinee.sources.files import Columns, TitleColumns, load

PLAIN = Columns(member="user", title="film", time="at")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def times(events: Any) -> list[str]:
    return [time.isoformat() for time in events["event_time"].to_pylist()]


def test_csv_with_a_constant_type_comes_out_by_time_with_ties_in_file_order(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user,film,at\na,x,200\nb,x,100\na,y,100\n")
    dataset = load("own", path, PLAIN)
    assert dataset.events["event_id"].to_pylist() == ["own-2", "own-3", "own-1"]
    assert set(dataset.events["type"].to_pylist()) == {"play"}
    assert times(dataset.events)[0] == "1970-01-01T00:01:40+00:00"
    assert dataset.catalogue.title_ids == ["x", "y"]


def test_every_column_can_be_declared_and_types_translated(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("id,user,film,at,what,stars,visit,where,place\n")
        file.write("e1,1,7,2024-05-01T22:00:00+02:00,seen,,s1,home,3\n")
        file.write("e2,1,7,2024-05-01T20:30:00,rate,4.5,s1,home,\n")
        file.write("e3,1,,2024-05-01 20:40:00Z,search,,,,\n")
    columns = Columns(
        member="user",
        title="film",
        time="at",
        time_format="iso",
        type="what",
        types={"seen": EventType.PLAY},
        value="stars",
        event_id="id",
        session="visit",
        surface="where",
        position="place",
    )
    events = load("own", path, columns).events
    assert events["type"].to_pylist() == ["play", "rate", "search"]
    assert events["value"].to_pylist() == [None, 4.5, None]
    assert events["position"].to_pylist() == [3, None, None]
    assert events["title_id"].to_pylist() == ["7", "7", None]
    assert events["session"].to_pylist() == ["s1", "s1", None]
    assert times(events)[0] == "2024-05-01T20:00:00+00:00"


def test_parquet_times_and_numbers_keep_their_types(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 5, 1, 12, 0, 0, 250)
    pl.DataFrame({"user": [1.0, 2.0], "film": [3, 4], "at": [moment, moment]}).write_parquet(
        tmp_path / "log.parquet"
    )
    events = load("own", tmp_path / "log.parquet", PLAIN).events
    assert times(events)[0] == "2024-05-01T12:00:00.000250+00:00"
    assert events["member_id"].to_pylist() == ["1", "2"]


@pytest.mark.parametrize(
    ("time_format", "text"),
    [
        ("s", "1714564800"),
        ("ms", "1714564800000"),
        ("us", "1714564800000000"),
        ("%d/%m/%Y %H", "01/05/2024 12"),
    ],
)
def test_time_formats(tmp_path: Path, time_format: str, text: str) -> None:
    path = write(tmp_path / "log.csv", f"user,film,at\na,x,{text}\n")
    columns = Columns(member="user", title="film", time="at", time_format=time_format)
    assert times(load("own", path, columns).events) == ["2024-05-01T12:00:00+00:00"]


def test_titles_come_from_their_own_file(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", "user,film,at\na,x,1\n")
    titles = write(
        tmp_path / "titles.csv",
        "id,name,kinds,out,tongue,age,who,words\n"
        "x,Ex,Drama / War,1999,en,13,A / B,sea\n"
        "y,Why,,2001-02-03,,,,\n",
    )
    columns = TitleColumns(
        title="id",
        name="name",
        genres="kinds",
        cast="who",
        keywords="words",
        separator="/",
        release_date="out",
        language="tongue",
        maturity="age",
    )
    rows = load("own", log, PLAIN, titles=titles, title_columns=columns).catalogue.table.to_pylist()
    assert rows == [
        {
            "title_id": "x",
            "name": "Ex",
            "genres": ["Drama", "War"],
            "release_date": datetime.date(1999, 1, 1),
            "language": "en",
            "maturity": 13,
            "cast": ["A", "B"],
            "keywords": ["sea"],
        },
        {
            "title_id": "y",
            "name": "Why",
            "genres": [],
            "release_date": datetime.date(2001, 2, 3),
            "language": None,
            "maturity": None,
            "cast": [],
            "keywords": [],
        },
    ]
    write(log, "user,film,at\na,x,1\na,q,2\n")
    with pytest.raises(InvalidInput, match=r"log\.csv row 2: title 'q' is not in .*titles\.csv"):
        load("own", log, PLAIN, titles=titles, title_columns=columns)
    with pytest.raises(InvalidInput, match="without title_columns"):
        load("own", log, PLAIN, titles=titles)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("user,at\na,1\n", "no column 'film'; its columns: user, at"),
        ("user,film,at\na,x,1\n,x,2\n", r"row 2: column user is None"),
        ("user,film,at\na,,1\n", r"row 1: column film is None; accepted: a title"),
        (
            "user,film,at\na,x,1\na,x,soon\n",
            r"row 2: column at is 'soon'; accepted: a number since the epoch",
        ),
        ("user,film,at\na,x,-5\n", r"row 1: column at is '-5'; accepted: a time from 1970 on"),
        ("user,film,at\na,x,\n", r"row 1: column at is None"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        load("own", write(tmp_path / "log.csv", text), PLAIN)


@pytest.mark.parametrize(
    ("given", "row", "said"),
    [
        ({"type": "extra"}, "watched", "row 1: column extra is 'watched'; accepted: impression, click"),
        ({"value": "extra"}, "inf", "row 1: column extra is 'inf'; accepted: a finite number"),
        ({"position": "extra"}, "1.5", "row 1: column extra is '1.5'; accepted: a whole number"),
        ({"position": "extra"}, "-1", "row 1: column extra is '-1'"),
        ({"time_format": "iso"}, "", "row 1: column at is '1'; accepted: ISO 8601"),
        ({"time_format": "%Y"}, "", r"row 1: column at is '1'; accepted: %Y"),
        ({"time_format": "days"}, "", "time_format is 'days'"),
    ],
)
def test_bad_values_are_named(tmp_path: Path, given: dict[str, Any], row: str, said: str) -> None:
    path = write(tmp_path / "log.csv", f"user,film,at,extra\na,x,1,{row}\n")
    with pytest.raises(InvalidInput, match=said):
        load("own", path, Columns(**{"member": "user", "title": "film", "time": "at", **given}))


def test_repeated_ids_and_missing_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user,film,at\na,x,1\na,y,2\n")
    with pytest.raises(InvalidInput, match="row 2: column user is 'a'; accepted: an id that no earlier row"):
        load("own", path, Columns(member="user", title="film", time="at", event_id="user"))
    with pytest.raises(NotFound, match=r"none\.csv does not exist"):
        load("own", tmp_path / "none.csv", PLAIN)
    with pytest.raises(InvalidInput, match=r"log\.txt is not one of \.parquet"):
        load("own", tmp_path / "log.txt", PLAIN)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(InvalidInput, match=r"broken\.parquet is not readable"):
        load("own", tmp_path / "broken.parquet", PLAIN)
