"""Homes that benchmarks serve from: drawn as said, and served by the real recommender."""

from __future__ import annotations

import numpy as np
from benchmarks import served

from matinee.config import Settings
from matinee.serving.recommender import Recommender, Request


def test_titles_and_histories_are_drawn_as_said() -> None:
    offered = served.catalogue(50)
    assert offered.title_ids == [f"t{i}" for i in range(50)]
    assert all(1 <= len(genres) <= 3 for genres in offered.table["genres"].to_pylist())
    watched = served.histories(500, 40)
    assert all(5 <= len(titles) == len(set(titles)) <= 80 for titles in watched)
    assert np.mean([np.mean(np.array(titles) < 250) for titles in watched]) > 0.6
    assert watched == served.histories(500, 40)


def test_a_home_answers_from_every_model_of_the_ensemble(settings: Settings) -> None:
    served.make(settings, titles=120, members=30)
    recommender = Recommender(settings)
    recommender.start()
    answer = recommender.recommend(Request(member_id="m3", k=10))
    recommender.close()
    assert answer.ranking.answer == "personal"
    assert len(answer.ranking.candidates) == 10
    added = answer.ranking.candidates[0].contributions
    assert added.keys() == {"popularity", "cf", "dnn", "gnn"}
    assert all(added.values())
