"""Commit files: whole, and independent of how many workers wrote them."""

import pytest

from matinee.errors import StorageError
from matinee.features import commits


def test_what_is_written_is_read_back(tmp_path):
    done = commits.Commit(
        offsets={"c1": {0: 5, 3: 9}}, events=13, duplicates=1, dead_letters=2, last_event_time=7
    )
    commits.write(tmp_path / "stream", "worker-0", done)
    assert commits.read(tmp_path / "stream") == {"worker-0": done}


def test_no_commit_is_an_empty_one(tmp_path):
    assert commits.offsets(commits.read(tmp_path / "nothing"), "c1") == {}


def test_the_furthest_offset_of_the_cluster_counts():
    held = {
        "worker-0": commits.Commit(offsets={"c1": {0: 5, 1: 8}, "c0": {0: 99}}),
        "worker-1": commits.Commit(offsets={"c1": {1: 2, 2: 4}}),
    }
    assert commits.offsets(held, "c1") == {0: 5, 1: 8, 2: 4}
    assert commits.offsets(held, "new") == {}


def test_a_failed_write_leaves_the_commit_before(tmp_path):
    commits.write(tmp_path, "worker-0", commits.Commit(events=1))
    (tmp_path / "worker-0.draft").mkdir()
    with pytest.raises(StorageError, match="worker-0"):
        commits.write(tmp_path, "worker-0", commits.Commit(events=2))
    assert commits.read(tmp_path)["worker-0"].events == 1
