"""The pure parts of answering: parts that sum to the score, and the query a member becomes."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import served_home

from matinee.features.online import MemberState
from matinee.models.base import Model, Progress, Query, Scores, TrainingSet
from matinee.models.bundle import Bundle
from matinee.serving.batches import joined
from matinee.serving.rank import Titles
from matinee.serving.recommender import Known, _query, scored, scored_all
from matinee.serving.scores import EveryTitle
from matinee.serving.versions import Explained, Live


class Plain(Model):
    """Scores a title by its position."""

    def __init__(self, config: None = None) -> None: ...

    def fit(self, data: TrainingSet, *, seed: int, progress: Progress | None = None) -> None: ...

    def score(self, query: Query) -> Scores:
        return np.tile(np.arange(served_home.TITLES, dtype=np.float32), (len(query), 1))

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        return cls()


class Summed(Plain):
    """The same, in two parts."""

    def score_parts(self, query: Query) -> dict[str, Scores]:
        return {"a": 0.25 * self.score(query), "b": 0.75 * self.score(query)}


def version(model: Model) -> Live:
    catalogue = served_home.catalogue()
    positions = {title_id: i for i, title_id in enumerate(catalogue.title_ids)}
    bundle = Bundle(name="plain", model=model, catalogue=catalogue, positions=positions)
    return Live(name="recommender/9", bundle=bundle, titles=Titles(catalogue))


def state(*title_ids: str) -> MemberState:
    return MemberState(
        member_id="m",
        watched_title_ids=title_ids,
        watched_times=[10 * (i + 1) for i in range(len(title_ids))],
        features={"plays_1h": 2.0, "affinity[Drama]": 0.5},
        event_time=99,
    )


def known(live: Live, member: MemberState | None) -> Known:
    query, watched, reason = _query(live, member, 5, None)
    return Known(
        request_id="r",
        member_id="m",
        surface="home",
        cell="v1",
        version=live,
        state=member,
        query=query,
        watched=watched,
        reason=reason,
        time=5,
    )


def test_a_model_without_parts_is_its_own_part() -> None:
    live = version(Plain())
    found = scored(known(live, None)).scores
    assert isinstance(found, EveryTitle)
    assert list(found.parts) == [live.bundle.name]
    np.testing.assert_array_equal(found.parts[live.bundle.name], found.values)


def test_parts_sum_to_the_score() -> None:
    model = Summed()
    assert isinstance(model, Explained)
    found = scored(known(version(model), state("t3"))).scores
    assert isinstance(found, EveryTitle)
    np.testing.assert_allclose(found.values, found.parts["a"] + found.parts["b"])
    assert found.values.dtype == np.float32


def test_titles_the_version_does_not_know_are_skipped() -> None:
    query, watched, reason = _query(version(Plain()), state("t3", "new", "t1"), 1000, None)
    assert watched.tolist() == query.histories[0].tolist() == [3, 1]
    assert query.times[0].tolist() == [10, 30]
    assert query.now.tolist() == [1000]
    assert reason is None
    assert query.member_features is not None
    assert list(query.member_features.names) == ["plays_1h", "affinity[Drama]"]
    assert query.member_features.values.tolist() == [[2.0, 0.5]]


def test_a_history_of_unknown_titles_alone_is_a_cold_start() -> None:
    query, watched, reason = _query(version(Plain()), state("new"), 1000, None)
    assert (len(query.histories[0]), len(watched), reason) == (0, 0, "no_known_titles")


def test_an_unknown_member_has_no_features() -> None:
    query, _, reason = _query(version(Plain()), None, 1000, "unknown_member")
    assert query.member_features is None
    assert reason == "unknown_member"


def test_many_members_at_once_score_as_one_by_one() -> None:
    live = version(Summed())
    members = [known(live, state("t3", "t1")), known(live, None), known(live, state("t2"))]
    for one, together in zip(map(scored, members), scored_all(members), strict=True):
        assert together.known is one.known
        everything = np.arange(len(live.titles))
        np.testing.assert_allclose(together.scores.at(everything), one.scores.at(everything))
        assert together.scores.parts_at(everything).keys() == one.scores.parts_at(everything).keys()
    query = joined([each.query for each in members])
    assert query.member_features is not None
    assert np.isnan(query.member_features.values[1]).all()
    assert query.member_features.values[2].tolist() == [2.0, 0.5]
