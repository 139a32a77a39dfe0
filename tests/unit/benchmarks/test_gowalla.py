import gzip
import json
import sys
from pathlib import Path

import pytest
from benchmarks import gowalla

from matinee.models.cf import SPEC


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tastes, titles 0-4 and 5-9; each member has one title of its taste left to test."""
    train, test = [], []
    for member in range(12):
        taste = [member % 2 * 5 + place for place in range(5)]
        left = taste.pop(member % 5)
        train.append(" ".join(map(str, [member, *taste])))
        test.append(f"{member} {left}" if member else f"{member}")
    for part, lines in (("train", train), ("test", test)):
        with gzip.open(tmp_path / f"{part}.txt.gz", "wt") as file:
            file.write("\n".join(lines) + "\n")
    return tmp_path


def test_reads_the_split_as_published(folder: Path):
    split = gowalla.read(folder)
    assert [part.member_ids for part in (split.train, split.test)] == [[str(i) for i in range(12)]] * 2
    assert split.train.histories()[1].tolist() == [5, 7, 8, 9]
    assert [len(titles) for titles in split.test.histories()] == [0] + [1] * 11
    assert len(split.train.title_ids) == 10


def test_measures_a_model_that_finds_each_taste(folder: Path):
    found = gowalla.measure(gowalla.read(folder), SPEC.presets["test"])
    assert found["ndcg@20"] > 0.95
    assert found["fit_s"] > 0


def test_without_data_every_peer_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["gowalla", "--data", str(tmp_path)])
    gowalla.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["peer"] for line in lines] == list(gowalla.PUBLISHED)
    assert all(str(tmp_path) in line["skipped"] for line in lines)


def test_prints_a_line_for_each_peer_and_metric(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["gowalla", "--quick", "--data", str(folder)])
    gowalla.main()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 2 * len(gowalla.PUBLISHED)
    bspm = [line for line in lines if line["peer"] == "BSPM"]
    assert {line["metric"]: line["theirs"] for line in bspm} == {"recall@20": 0.192, "ndcg@20": 0.1597}
    assert all(line["ratio"] == round(line["ours"] / line["theirs"], 4) for line in lines)
