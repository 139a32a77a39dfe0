"""The point-in-time rule, and builds that readers see whole, in a folder and on S3."""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from s3_server import BUCKET, s3_server

from matinee.errors import NotFound, StorageError
from matinee.features import asof, offline
from matinee.schema import TIMESTAMP


@pytest.fixture
def s3_root(monkeypatch):
    with s3_server(monkeypatch) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield f"s3://{BUCKET}/offline"


@pytest.fixture(params=["folder", "s3"])
def root(request, tmp_path):
    return tmp_path / "offline" if request.param == "folder" else request.getfixturevalue("s3_root")


def folders(root):
    files, base = offline.opened(root)
    from pyarrow import fs

    found = files.get_file_info(fs.FileSelector(base))
    return sorted(each.base_name for each in found if each.type is fs.FileType.Directory)


def table(rows):
    """Rows of (key, time, value)."""
    return pa.table(
        {
            "member_id": pa.array([row[0] for row in rows], pa.string()),
            "event_timestamp": pa.array([row[1] for row in rows], pa.int64()).cast(TIMESTAMP),
            "value": pa.array([row[2] for row in rows], pa.int64()),
        }
    )


ROWS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 12), st.integers(0, 999)), max_size=30
)
ASKED = st.lists(st.tuples(st.sampled_from(["a", "b", "nobody"]), st.integers(0, 14)), max_size=30)


@given(ROWS, ASKED, st.sampled_from([0, 3]))
@settings(max_examples=150)
def test_no_row_sees_its_future(rows, asked, ttl):
    want = []
    for key, at in asked:
        past = [(row[1], i, row[2]) for i, row in enumerate(rows) if row[0] == key and row[1] <= at]
        past = [each for each in past if not ttl or at - each[0] <= ttl]
        want.append(max(past)[2] if past else None)
    entity = table([(key, time, 0) for key, time in asked]).drop_columns("value")
    got = asof.join(entity, table(rows), keys=["member_id"], columns=["value"], names=["v"], ttl_us=ttl)
    assert got["v"].to_pylist() == want


def test_a_build_is_seen_when_it_is_published(root):
    with pytest.raises(NotFound, match="build_features"):
        offline.read(root, "view")
    file = offline.write_part(root, "one", "view", "0", table([("a", 1, 1)]))
    with pytest.raises(NotFound):
        offline.read(root, "view")
    offline.publish(root, offline.Manifest(build="one", as_of=1, files={"view": [file]}))
    assert offline.read(root, "view", ["value"])["value"].to_pylist() == [1]


def test_the_build_before_stays_for_its_readers_and_older_ones_go(root):
    for build in ("one", "two", "three"):
        file = offline.write_part(root, build, "view", "0", table([("a", 1, 1)]))
        offline.publish(root, offline.Manifest(build=build, as_of=1, files={"view": [file]}))
    assert folders(root) == ["three", "two"]


def test_appended_rows_follow_those_of_the_build(root):
    offline.append(root, "view", table([("a", 1, 1)]))
    offline.append(root, "view", table([("a", 1, 2)]))
    assert offline.read(root, "view")["value"].to_pylist() == [1, 2]
    entity = table([("a", 5, 0)]).drop_columns("value")
    rows = offline.read(root, "view")
    got = asof.join(entity, rows, keys=["member_id"], columns=["value"], names=["value"])
    assert np.asarray(got["value"]).tolist() == [2]


def test_files_outside_the_time_asked_for_are_not_opened(root):
    parts = []
    for day in range(3):
        rows = table([("a", day * 10 + i, day * 10 + i) for i in range(10)])
        parts.append(offline.write_part(root, "one", "view", f"day-{day}", rows))
    offline.publish(root, offline.Manifest(build="one", as_of=29, files={"view": parts}))
    files, base = offline.opened(root)
    files.delete_file(f"{base}/{parts[2]}")
    assert offline.read(root, "view", ["value"], since=8, until=11)["value"].to_pylist() == [8, 9, 10, 11]
    assert offline.read(root, "view", since=3, until=3)["value"].to_pylist() == [3]
    assert offline.read(root, "view", until=-1).num_rows == 0
    with pytest.raises(FileNotFoundError):
        offline.read(root, "view", since=8, until=20)


def test_a_manifest_without_spans_is_read_whole(tmp_path):
    offline.append(tmp_path, "view", table([("a", 1, 1), ("a", 7, 7)]))
    path = tmp_path / "manifest.json"
    held = json.loads(path.read_text())
    assert list(held.pop("spans").values()) == [[1, 7]]
    path.write_text(json.dumps(held))
    assert offline.read(tmp_path, "view", since=5)["value"].to_pylist() == [7]
    assert offline.read_manifest(tmp_path).spans == {}


def test_the_span_of_a_file_covers_its_row_groups_in_any_unit(tmp_path):
    path = tmp_path / "one" / "view" / "0.parquet"
    path.parent.mkdir(parents=True)
    times = pa.array([5_000, 2_500, 9_999, None], pa.timestamp("ns", "UTC"))
    pq.write_table(pa.table({"event_timestamp": times}), path, row_group_size=1)
    offline.publish(tmp_path, offline.Manifest(build="one", as_of=9, files={"view": ["one/view/0.parquet"]}))
    assert offline.read_manifest(tmp_path).spans in ({}, {"one/view/0.parquet": [2, 9]})


def add(root, number):
    offline.append(root, "view", table([("a", number, number)]))


def test_processes_that_append_at_once_lose_nothing(tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(add, [tmp_path] * 8, range(8)))
    assert sorted(offline.read(tmp_path, "view")["value"].to_pylist()) == list(range(8))


def test_a_root_that_cannot_be_written_says_so(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="no space left"):
        offline.append(tmp_path, "view", table([("a", 1, 1)]))
    assert offline.read_manifest(tmp_path) is None
    assert not list(tmp_path.rglob("*.draft"))


def test_a_folder_of_parquet_is_read_in_the_order_of_its_paths_without_what_is_hidden(root):
    files, base = offline.opened(root)
    for number, name in enumerate(["b/0.parquet", "a.parquet", "_log/0.parquet", ".draft.parquet"]):
        offline.write_parquet(files, f"{base}/{name}", table([("a", 1, number)]))
    assert offline.parquet_parts(files, base).read()["value"].to_pylist() == [1, 0]
    assert offline.parquet_parts(files, f"{base}/a.parquet").count() == 1
    with pytest.raises(NotFound, match="nowhere: none"):
        offline.parquet_parts(files, f"{base}/nowhere")
