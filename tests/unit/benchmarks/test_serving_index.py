"""What the index finds of a small drawn catalogue is what a full pass finds; real data is put in order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks import served, serving_index

from matinee.schema import Interactions


def test_members_watch_their_titles_in_the_order_of_the_file() -> None:
    watched = Interactions(
        member_ids=["a", "b"],
        title_ids=["x", "y", "z"],
        member=np.array([1, 0, 1, 0, 1], np.int32),
        title=np.array([2, 0, 1, 1, 0], np.int32),
        time=np.zeros(5, np.int64),
        value=np.full(5, np.nan, np.float32),
    )
    found = serving_index.in_turn(watched).interactions
    assert [history.tolist() for history in found.histories()] == [[0, 1], [2, 1, 0]]
    assert (np.diff(found.time) >= 0).all()


def test_a_small_catalogue_is_found_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = serving_index.drawn(400)
    bundle = serving_index.fitted(tmp_path / "models", data, {**served.SHORT, "cf": {"method": "spectral"}})
    serving_index.measure("drawn", bundle, data)
    figures, models, ways = map(json.loads, capsys.readouterr().out.splitlines())
    assert figures["titles"] == 400
    assert figures["recall@200"] == figures["page_titles"] == 1
    assert set(models["models"]) == {"cf", "dnn", "gnn"}
    assert all(way["recall@20"] > 0.9 for way in ways["candidates"].values())
