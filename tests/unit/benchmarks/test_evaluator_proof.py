import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import evaluator_proof

from matinee.models.base import Query
from matinee.schema import Interactions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tastes, titles 0-4 and 5-9; each member has one title of its taste left to test."""
    for part in ("train", "test"):
        with gzip.open(tmp_path / f"{part}.txt.gz", "wt") as file:
            for member in range(12):
                taste = [member % 2 * 5 + place for place in range(5)]
                left = taste.pop(member % 5)
                print(member, *(taste if part == "train" else [left]), file=file)
    return tmp_path


def test_scores_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluator_proof, "RANK", 4)
    watched = (np.random.default_rng(0).random((30, 12)) < 0.4).astype(float)
    watched[np.arange(30), np.arange(30) % 12] = 1
    member, title = np.nonzero(watched)
    train = Interactions(
        member_ids=[str(i) for i in range(30)],
        title_ids=[str(i) for i in range(12)],
        member=member.astype(np.int32),
        title=title.astype(np.int32),
        time=np.zeros(len(member), np.int64),
        value=np.full(len(member), np.nan, np.float32),
    )
    by_member, by_title = np.sqrt(watched.sum(1)), np.sqrt(watched.sum(0))
    normalised = watched / by_member[:, None] / by_title
    right = np.linalg.svd(normalised)[2][:4].T
    ideal = np.diag(1 / by_title) @ right @ right.T @ np.diag(by_title)
    query = Query(histories=train.histories(), times=[np.zeros(0, np.int64)] * 30, now=np.zeros(30, np.int64))
    expected = watched @ (normalised.T @ normalised + 0.3 * ideal)
    assert evaluator_proof.gf_cf(train)(query) == pytest.approx(expected, abs=1e-5)


def test_prints_what_it_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["evaluator_proof", "--data", str(folder)])
    evaluator_proof.main()
    line = json.loads(capsys.readouterr().out)
    assert line["recall@20"] == [1, 1, 1]
    assert line["ndcg@20"][0] > 0.95
    assert line["published"] == evaluator_proof.PUBLISHED


def test_without_data_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["evaluator_proof", "--data", str(tmp_path)])
    evaluator_proof.main()
    assert str(tmp_path) in json.loads(capsys.readouterr().out)["skipped"]
