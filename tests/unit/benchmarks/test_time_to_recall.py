import gzip

import numpy as np
from benchmarks import gowalla
from benchmarks.peers.recommend import accuracy
from benchmarks.time_to_recall import Race, task


def split(tmp_path, train, test):
    for name, lines in (("train", train), ("test", test)):
        with gzip.open(tmp_path / f"{name}.txt.gz", "wt") as file:
            file.writelines(" ".join(map(str, line)) + "\n" for line in lines)
    return gowalla.read(tmp_path)


def test_a_split_becomes_a_task_for_members_with_a_test_title(tmp_path):
    found = task(split(tmp_path, [[0, 1, 2], [1, 2], [2, 0]], [[0, 3], [1], [2, 1, 2]]))
    assert (found.members, found.titles) == (3, 4)
    assert list(zip(found.member, found.title, strict=True)) == [(0, 1), (0, 2), (1, 2), (2, 0)]
    assert found.asked.tolist() == [0, 2]
    assert [each.tolist() for each in found.histories] == [[1, 2], [0]]
    assert [each.tolist() for each in found.answers] == [[3], [1, 2]]


def test_our_side_is_timed_to_lists_that_find_what_is_asked(tmp_path):
    """Two tastes, titles 0-4 and 5-9; each member has one title of its taste left."""
    tastes = [[member % 2 * 5 + place for place in range(5)] for member in range(12)]
    left = [titles.pop(member % 5) for member, titles in enumerate(tastes)]
    data = split(
        tmp_path,
        [[member, *titles] for member, titles in enumerate(tastes)],
        [[member, title] for member, title in enumerate(left)],
    )
    race = Race(split=data, task=task(data), python=tmp_path, times=1.0)
    race.check()
    assert race.seen["ours_recall"] == 1.0
    assert race.own_s > 0
    assert race.ours() > 0
    first = accuracy(race._lists(), race.task.answers)["mrr@100"]
    assert np.mean(first == 1) > 0.9
