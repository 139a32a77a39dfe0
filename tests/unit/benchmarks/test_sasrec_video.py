from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from benchmarks.sasrec_video import NEGATIVES, asked, full_figures, read, training_set


def histories(titles: int = 200) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.permutation(titles)[: 2 + member].astype(np.int32) for member in range(20)]


def test_events_are_read_by_member_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "Video.txt.gz"
    with gzip.open(path, "wt") as lines:
        lines.write("1 3\n2 1\n1 2\n3 4\n")
    found, titles = read(path)
    assert [each.tolist() for each in found] == [[2, 1], [0], [3]]
    assert titles == 4


def test_nothing_that_is_asked_is_learned() -> None:
    told = histories()
    learned = training_set(told, 200).interactions.histories()
    for drop in (1, 2):
        question = asked(told, 200, drop=drop, count=15, seed=0)
        assert len(question.answers) == 15
        for row, member in enumerate(question.members):
            known = question.histories[row]
            assert known.tolist() == told[member][:-drop].tolist()
            assert question.answers[row] == told[member][-drop]
            assert not np.isin(told[member][-drop:], learned[member]).any()
            assert not np.isin(question.negatives[row], [*known, question.answers[row]]).any()
            assert question.negatives[row].shape == (NEGATIVES,)


def test_gain_falls_with_the_rank_and_ends_at_the_cut() -> None:
    figures = full_figures(np.array([0, 1, 9, 10, 19, 20]))
    np.testing.assert_allclose(figures["ndcg@10 full"], [1, 1 / np.log2(3), 1 / np.log2(11), 0, 0, 0])
    np.testing.assert_array_equal(figures["recall@10 full"], [1, 1, 1, 0, 0, 0])
    assert (figures["ndcg@20 full"] > 0).tolist() == [True] * 5 + [False]
