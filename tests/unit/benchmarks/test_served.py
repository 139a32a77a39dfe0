"""Homes that benchmarks serve from: drawn as said, and served by the real recommender."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import live_server
import numpy as np
import orjson
import pytest
from benchmarks import served
from benchmarks.peers.serve_models import Pages

from matinee.client import Client
from matinee.config import Settings
from matinee.gateway.assembly import assemble
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
    theirs = peers_page(settings, "m3")
    with live_server.serving(assemble(settings, "127.0.0.1:9")) as url, Client(url) as client:
        ours = client.home("m3")
    assert titles(theirs) == titles(ours)
    assert sum(map(len, titles(ours))) > 40


def peers_page(settings: Settings, member_id: str) -> dict[str, Any]:
    """The page as the peers of `serving_throughput` put it together."""
    pages = Pages(settings)
    known = pages.known(member_id, time.time_ns() // 1000)
    page = pages.page(known, {name: rows[0] for name, rows in pages.parts(known.query).items()})
    found: dict[str, Any] = orjson.loads(page)
    return found


def titles(page: dict[str, Any]) -> list[list[str]]:
    return [[item["title_id"] for item in row["items"]] for row in page["rows"]]


def test_a_home_is_made_once_and_again_where_it_is_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def stopped(settings: Settings, *, titles: int, members: int) -> None:
        made.append((titles, members))
        (settings.home / "draft").mkdir()
        if len(made) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(served, "make", stopped)
    folder = tmp_path / "homes" / "small"
    with pytest.raises(KeyboardInterrupt):
        served.home(folder, titles=50, members=5)
    for _ in range(2):
        settings = served.home(folder, titles=50, members=5, flags={"serving.replicas": 2})
    assert made == [(50, 5)] * 2
    assert (settings.home, settings.serving.replicas) == (folder, 2)


def test_a_home_of_other_sizes_and_a_folder_of_something_else_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "make", lambda settings, *, titles, members: None)
    served.home(tmp_path / "home", titles=50, members=5)
    with pytest.raises(ValueError, match=r'has \{"titles": 50, "members": 5\}; asked for: .* 60'):
        served.home(tmp_path / "home", titles=60, members=5)
    mine = tmp_path / "mine" / "letter.txt"
    mine.parent.mkdir()
    mine.write_text("dear")
    with pytest.raises(ValueError, match="neither empty nor a data home"):
        served.home(mine.parent, titles=50, members=5)
    assert mine.read_text() == "dear"
