"""Commits: state and offsets of one moment, whoever owned the partitions; nothing from over epochs."""

from dataclasses import replace

import pyarrow as pa
import pytest
from s3_server import BUCKET, s3_server

from matinee.errors import StorageError
from matinee.features.commits import Commit, Commits, FencedError, add_counts, positions


def rows(*values):
    return {"tiles": pa.table({"value": list(values)})}


def restored(commits, commit):
    return [table["value"].to_pylist() for tables in commits.state(commit) for table in tables.values()]


@pytest.fixture
def commits(tmp_path):
    return Commits(str(tmp_path / "stream"))


@pytest.fixture
def remote(monkeypatch):
    with s3_server(monkeypatch) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield Commits(f"s3://{BUCKET}/stream")


def test_commits_lie_on_s3_as_well(remote):
    assert remote.read() == []
    epoch = remote.begin({"a": [0]})
    first = remote.write(Commit(name="a", epoch=epoch.number, partitions=[0]), [rows(1, 2)], whole=True)
    after = remote.write(replace(first, offsets={"c": {0: 9}}), [rows(3)], whole=False)
    assert remote.read() == [after]
    assert restored(remote, after) == [[1, 2], [3]]
    new = remote.begin({"b": [0]})
    with pytest.raises(FencedError):
        remote.write(after, [rows(4)], whole=False)
    moved = remote.write(Commit(name="b", epoch=new.number, partitions=[0]), [rows(1, 2, 3)], whole=True)
    remote.forget(new.number)
    assert remote.read() == [moved]
    assert restored(remote, moved) == [[1, 2, 3]]


def test_no_commit_is_an_empty_one(commits):
    assert commits.read() == []
    assert commits.epoch().number == 0
    assert commits.owners([0, 1]) == {}


def test_what_is_written_is_read_back_with_its_state_in_order(commits):
    epoch = commits.begin({"worker-0": [0, 1]})
    first = Commit(
        name="worker-0",
        epoch=epoch.number,
        partitions=[0, 1],
        offsets={"c1": {0: 5, 1: 9}},
        counts={"events": 13, "late/v": 1},
        last_event_time=7,
        tables={"tiles": "d"},
    )
    whole = commits.write(first, [rows(1, 2), rows(3)], whole=True)
    after = commits.write(replace(whole, last_event_time=8), [rows(4)], whole=False)
    assert commits.read() == [after]
    assert restored(commits, after) == [[1, 2], [3], [4]]
    unchanged = commits.write(after, [], whole=False)
    assert restored(commits, unchanged) == [[1, 2], [3], [4]]
    again = commits.write(unchanged, [rows(9)], whole=True)
    assert restored(commits, again) == [[9]]


def test_files_of_another_layout_are_no_commits(commits, tmp_path):
    (tmp_path / "stream").mkdir()
    (tmp_path / "stream" / "worker-0.json").write_text('{"offsets": {"c": {"0": 5}}, "events": 5}')
    assert commits.read() == []
    assert commits.begin({"worker-0": [0]}).carried == {}


def test_a_partition_belongs_to_its_owner_in_the_latest_epoch(commits):
    old = commits.begin({"worker-0": [0, 1, 2]})
    one = commits.write(
        Commit(name="worker-0", epoch=old.number, partitions=[0, 1, 2], offsets={"c": {0: 1, 1: 2, 2: 3}}),
        [rows(1)],
        whole=True,
    )
    new = commits.begin({"worker-0": [0], "worker-1": [1, 2]})
    two = commits.write(
        Commit(name="worker-0", epoch=new.number, partitions=[0], offsets={"c": {0: 8}}),
        [rows(2)],
        whole=True,
    )
    owners = commits.owners([0, 1, 2, 3])
    assert owners == {0: two, 1: one, 2: one}
    assert positions(owners, "c") == {0: 8, 1: 2, 2: 3}
    assert positions(owners, "another") == {}


def test_a_worker_of_an_epoch_that_is_over_commits_nothing(commits):
    old = commits.begin({"worker-0": [0]})
    stale = commits.write(Commit(name="worker-0", epoch=old.number, partitions=[0]), [rows(1)], whole=True)
    commits.begin({"worker-0": [0]})
    with pytest.raises(FencedError, match="epoch 2 has begun"):
        commits.write(replace(stale, offsets={"c": {0: 99}}), [rows(2)], whole=False)
    assert commits.read() == [stale]


def test_an_epoch_carries_what_the_ones_before_had_counted(commits):
    for counted in (3, 4):
        epoch = commits.begin({"a": [0]})
        commits.write(
            Commit(name="a", epoch=epoch.number, counts={"events": counted}, last_event_time=counted),
            [],
            whole=True,
        )
    begun = commits.begin({"a": [0]})
    assert begun.carried == {"events": 7}
    assert begun.last_event_time == 4
    assert add_counts([begun.carried, {"events": 1, "duplicates": 2}]) == {"events": 8, "duplicates": 2}


def test_what_older_epochs_left_goes_once_it_is_not_needed(commits, tmp_path):
    for _ in range(2):
        epoch = commits.begin({"a": [0]})
        commits.write(Commit(name="a", epoch=epoch.number, partitions=[0]), [rows(epoch.number)], whole=True)
    commits.forget(epoch.number)
    (left,) = commits.read()
    assert restored(commits, left) == [[2]]
    assert len(list((tmp_path / "stream").glob("*.arrows"))) == 1
    assert commits.epoch() == epoch


def test_changes_that_outgrow_the_whole_are_noticed(commits):
    commit = Commit(name="a", files=["w", "c"], sizes=[2 << 20, 1 << 20])
    assert not commits.outgrown(commit)
    assert commits.outgrown(replace(commit, files=["w", "c", "d"], sizes=[2 << 20, 1 << 20, 2 << 20]))
    assert commits.outgrown(replace(commit, files=["w"] * 65, sizes=[1] * 65))


def test_a_failed_write_leaves_the_commit_before(commits, tmp_path):
    epoch = commits.begin({"a": [0]})
    before = commits.write(Commit(name="a", epoch=epoch.number, partitions=[]), [rows(1)], whole=True)
    (tmp_path / "stream" / f"{epoch.number:06d}-a.json.draft").mkdir()
    with pytest.raises(StorageError, match=r"a\.json"):
        commits.write(replace(before, last_event_time=5), [rows(2)], whole=True)
    assert commits.read() == [before]
    assert restored(commits, before) == [[1]]
