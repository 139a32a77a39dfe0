from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from benchmarks import sasrec_video
from benchmarks.sasrec_video import Entry, both, fitted, questions

TITLES = 60


@pytest.fixture
def histories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """A file of sixteen members, of whom the first two have one event and two."""
    generator = np.random.default_rng(0)
    told = [generator.permutation(TITLES)[: 1 + member].tolist() for member in range(15)]
    told.append(list(range(TITLES)))
    path = tmp_path / "Video.txt.gz"
    with gzip.open(path, "wt") as lines:
        lines.writelines(f"{member + 1} {title + 1}\n" for member, mine in enumerate(told) for title in mine)
    monkeypatch.setattr(sasrec_video, "DATA", path)
    return told


def test_nothing_that_is_asked_is_learned(histories: list[list[int]]) -> None:
    learned, tuning, test = questions(12)
    assert (len(tuning), len(test)) == (15, 12)
    known = learned.interactions.histories()
    assert known[0].tolist() == histories[0]
    for cases, last in ((tuning, 2), (test, 1)):
        for row, member in enumerate(cases.members):
            mine = histories[member]
            cut = len(mine) - min(last, len(mine) - 1)
            assert cases.query.histories[row].tolist() == mine[:cut]
            assert cases.relevant[row].tolist() == [mine[cut]]
            assert not np.isin(cases.relevant[row], known[member]).any()


def test_a_peer_sees_the_answers_of_the_tuning_cases_alone(histories: list[list[int]]) -> None:
    learned, tuning, test = questions(12)
    task = both(learned, tuning, test).task(answers=True)
    assert task.asked.tolist() == [*tuning.members, *test.members]
    assert [each.tolist() for each in task.answers] == [
        *(each.tolist() for each in tuning.relevant),
        *([] for _ in test.members),
    ]


def test_a_fit_is_kept(histories: list[list[int]], tmp_path: Path) -> None:
    learned, tuning, _ = questions(12)
    entry = Entry(model="popularity")
    first, fit_s = fitted(tmp_path, entry, learned, quick=False)
    again, same_s = fitted(tmp_path, entry, learned, quick=False)
    assert fit_s == same_s
    np.testing.assert_array_equal(first.score(tuning.query), again.score(tuning.query))
