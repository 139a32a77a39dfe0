import evaluation_examples
import numpy as np
import pytest

from matinee.errors import InvalidInput
from matinee.models.base import Model, Query, Scores
from matinee.training import evaluate, judge


class Fixed(Model):
    def __init__(self, config: list[float]) -> None:
        self.scores = np.array(config, np.float32)

    def fit(self, data, *, seed, progress=None) -> None: ...

    def score(self, query: Query) -> Scores:
        return np.tile(self.scores, (len(query), 1))

    def save(self, folder) -> None: ...

    @classmethod
    def load(cls, folder): ...


GENRES = np.eye(6, dtype=np.bool_)
GOOD, BAD = Fixed([0, 0, 0, 0, 0, 9]), Fixed([9, 8, 7, 6, 5, 0])


def cases(known: list[int]) -> evaluate.Cases:
    """Members who all watch title 5 next, after `known` of the titles before it."""
    return evaluation_examples.cases([range(count) for count in known], [[5]] * len(known), 6)


def test_segments_hold_the_members_they_name():
    judged = judge.judge({"good": GOOD, "bad": BAD}, cases([0, 0, 1, 5]), GENRES)
    found = judge.warmth(judged, seed=0)
    assert {name: set(parts) for name, parts in found.items()} == {
        "good": {"warm", "cold", "all"},
        "bad": {"warm", "cold", "all"},
    }
    assert found["good"]["all"]["ndcg@20"].value == 1
    assert found["bad"]["warm"]["ndcg@20"].value == 1  # nothing else is unseen
    assert found["bad"]["cold"]["ndcg@20"].value == pytest.approx(1 / np.log2(7))


def test_a_segment_nobody_is_in_is_left_out():
    judged = judge.judge({"good": GOOD}, cases([5, 5]), GENRES)
    assert set(judge.warmth(judged, seed=0)["good"]) == {"warm", "all"}


def test_bands_count_their_members():
    judged = judge.judge({"good": GOOD}, cases([0, 0, 3, 5]), GENRES)
    found = judge.bands(judged, "good", seed=0)
    assert {band: members for band, (members, _) in found.items()} == {
        "0 known": 2,
        "1 to 4 known": 1,
        "5 to 25 known": 1,
    }


def test_margins_are_over_every_other_model():
    judged = judge.judge({"good": GOOD, "bad": BAD}, cases([0, 1]), GENRES)
    assert list(judge.margins(judged, "good", seed=0)) == ["bad"]
    assert judge.margins(judged, "good", seed=0)["bad"].low > 0


def test_flat_figures_carry_intervals():
    judged = judge.judge({"good": GOOD}, cases([0, 1]), GENRES)
    found = judge.flat(judge.overall(judged, seed=0)["good"])
    assert found["ndcg@20"] == 1
    assert found["ndcg@20_interval"] == [1, 1]
    assert set(found) == {f"{metric}{end}" for metric in evaluate.METRICS for end in ("", "_interval")}


def test_nobody_to_test_is_an_error_a_person_can_act_on():
    with pytest.raises(InvalidInput, match="two watches"):
        judge.judge({"good": GOOD}, cases([]), GENRES)
