import gzip

import numpy as np
from benchmarks.peers.recommend import LENGTH
from benchmarks.time_to_recall import filtered, read


def split(tmp_path, train, test):
    for name, lines in (("train", train), ("test", test)):
        with gzip.open(tmp_path / f"{name}.txt.gz", "wt") as file:
            file.writelines(" ".join(map(str, line)) + "\n" for line in lines)
    return read(tmp_path)


def test_a_split_becomes_a_task_for_members_with_a_test_title(tmp_path):
    task = split(tmp_path, [[0, 1, 2], [1, 2], [2, 0]], [[0, 3], [1], [2, 1, 2]])
    assert (task.members, task.titles) == (3, 4)
    assert list(zip(task.member, task.title, strict=True)) == [(0, 1), (0, 2), (1, 2), (2, 0)]
    assert task.asked.tolist() == [0, 2]
    assert [each.tolist() for each in task.histories] == [[1, 2], [0]]
    assert [each.tolist() for each in task.answers] == [[3], [1, 2]]


def test_the_filter_is_that_of_a_dense_decomposition(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.time_to_recall.RANK", 5)
    draw = np.random.default_rng(0)
    dense = draw.random((30, 20)) < 0.3
    dense[:, 0] = dense[0] = True
    rows = [[member, *np.flatnonzero(dense[member])] for member in range(30)]
    task = split(tmp_path, rows, [[member, 0] for member in range(30)])
    lists = filtered(task)

    watched = dense.astype(float)
    normal = watched / np.sqrt(watched.sum(1, keepdims=True)) / np.sqrt(watched.sum(0))
    basis = np.linalg.svd(normal)[2][:5].T
    root = np.sqrt(watched.sum(0))
    ideal = (watched / root) @ basis @ basis.T * root
    scores = np.where(dense, -np.inf, watched @ normal.T @ normal + 0.3 * ideal)
    for member in range(30):
        unseen = int((~dense[member]).sum())
        expected = np.argsort(-scores[member])[:unseen]
        assert lists[member, :unseen].tolist() == expected.tolist()
        assert lists.shape[1] == LENGTH
