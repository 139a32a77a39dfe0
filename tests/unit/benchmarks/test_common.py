import json
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from benchmarks import common
from benchmarks.common import (
    PeerFailed,
    PeerMissing,
    compare,
    installed,
    machine,
    peer_venv,
    pinned,
    run_peer,
    skipped,
)


def _compared(capsys, own, other, **changes):
    own, other = iter(own), iter(other)
    line = compare(
        **{
            "name": "a_benchmark",
            "peer": "a_peer",
            "metric": "events",
            "unit": "1/s",
            "ours": lambda: next(own),
            "theirs": lambda: next(other),
            "higher_is_better": True,
            "sizes": {"events": 10},
            "versions": {"a_peer": "1.0"},
            "check": None,
            **changes,
        }
    )
    assert json.loads(capsys.readouterr().out) == line
    return line


def test_a_comparison_prints_medians_and_the_median_of_paired_ratios(capsys):
    line = _compared(capsys, [10, 20, 30, 40, 50], [10, 10, 10, 10, 100])
    assert (line["ours"], line["theirs"], line["ratio"]) == (30, 10, 2)
    assert line["interval"] == [0.5, 4]
    assert line["repeats"] == 5
    assert line["machine"] == machine()


def test_a_ratio_above_one_is_better_for_us_where_lower_is_better(capsys):
    assert _compared(capsys, [1.0] * 5, [4.0] * 5, higher_is_better=False)["ratio"] == 4


def test_outputs_are_checked_before_anything_is_measured(capsys):
    def differ():
        raise AssertionError("outputs differ")

    with pytest.raises(AssertionError, match="outputs differ"):
        _compared(capsys, [], [], check=differ)


def test_the_sides_take_turns_in_going_first(capsys):
    order = []

    def side(name):
        return lambda: order.append(name) or 1.0

    _compared(capsys, [], [], ours=side("ours"), theirs=side("theirs"))
    assert order[:4] == ["ours", "theirs", "theirs", "ours"]


def test_fewer_than_five_repeats_are_refused(capsys):
    with pytest.raises(ValueError, match="repeats is 4"):
        _compared(capsys, [], [], repeats=4)


def test_a_metric_of_zero_is_refused(capsys):
    with pytest.raises(ValueError, match="above zero"):
        _compared(capsys, [1, 1, 0, 1, 1], [1] * 5)


def test_a_skipped_peer_says_why(capsys):
    skipped("a_benchmark", "a_peer", "no such thing")
    assert json.loads(capsys.readouterr().out) == {
        "name": "a_benchmark",
        "peer": "a_peer",
        "skipped": "no such thing",
    }


def test_a_venv_is_made_once_and_again_for_other_requirements(tmp_path, monkeypatch):
    monkeypatch.setenv("MATINEE_BENCH_VENVS", str(tmp_path))
    wheel = tmp_path / "nothing-1.0-py3-none-any.whl"
    files = {
        "METADATA": "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(f"nothing-1.0.dist-info/{name}", text)
    python = peer_venv("empty", [str(wheel)])
    assert installed(python, ["nothing"]) == {"nothing": "1.0"}
    assert python.is_relative_to(tmp_path)
    (tmp_path / "empty" / "mine").touch()
    assert peer_venv("empty", [str(wheel)]) == python
    assert (tmp_path / "empty" / "mine").exists()
    peer_venv("empty", [str(wheel), "--no-deps"])
    assert not (tmp_path / "empty" / "mine").exists()


def test_a_peer_that_cannot_be_installed_says_so_and_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("MATINEE_BENCH_VENVS", str(tmp_path))
    for _ in range(2):
        with pytest.raises(PeerMissing, match="nowhere"):
            peer_venv("missing", [str(tmp_path / "nowhere.whl")])


@pytest.fixture
def script(tmp_path, monkeypatch):
    (tmp_path / "benchmarks" / "peers").mkdir(parents=True)
    monkeypatch.setattr(common, "ROOT", tmp_path)

    def write(text: str) -> str:
        (tmp_path / "benchmarks" / "peers" / "a_script.py").write_text("import json, os, sys, time\n" + text)
        return "a_script"

    return write


def test_a_peer_answers_with_its_last_line_on_the_cores_it_was_given(script):
    name = script(
        "print('starting')\n"
        "print(json.dumps({'asked': json.loads(sys.argv[1]), 'cores': len(os.sched_getaffinity(0))}))\n"
    )
    answer = run_peer(Path(sys.executable), name, {"size": 3}, cores=1, timeout_s=60)
    assert answer == {"asked": {"size": 3}, "cores": 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("sys.exit('broken here')", "broken here"),
        ("pass", "exit 0"),
        ("time.sleep(60)", "not done within"),
    ],
)
def test_a_peer_without_an_answer_has_failed(script, text, reason):
    with pytest.raises(PeerFailed, match=reason):
        run_peer(Path(sys.executable), script(text), {}, cores=1, timeout_s=0.5 if "sleep" in text else 60)


def test_pinning_ends_with_its_block():
    before = os.sched_getaffinity(0)
    with pinned(1) as cores:
        assert os.sched_getaffinity(0) == cores
        assert len(cores) == 1
    assert os.sched_getaffinity(0) == before


def test_versions_are_those_of_the_interpreter_asked_and_missing_packages_are_left_out():
    assert common.installed(Path(sys.executable), ["pytest", "no-such-package"]) == {
        "pytest": pytest.__version__
    }


def test_a_ratio_of_means_has_the_interval_of_resampled_groups():
    draw = np.random.default_rng(1)
    theirs = draw.random(600)
    groups = np.repeat(np.arange(200, dtype=np.int32), 3)
    value, low, high = common.ratio(2 * theirs, theirs, groups)
    assert (value, low, high) == pytest.approx((2, 2, 2))
    value, low, high = common.ratio(theirs + draw.normal(0.05, 0.1, 600), theirs, groups)
    assert 1 < low < value < high
    assert value == pytest.approx(1.1, abs=0.03)


def test_cases_of_one_group_are_drawn_together():
    theirs = np.ones(400)
    ours = np.repeat([1.0, 2.0], 200)
    alone = common.ratio(ours, theirs, np.arange(400, dtype=np.int32))
    together = common.ratio(ours, theirs, np.repeat(np.arange(4, dtype=np.int32), 100))
    assert alone[2] - alone[1] < 0.15
    assert (together[1], together[2]) == (1, 2)


def test_a_ratio_to_nothing_is_refused():
    with pytest.raises(ValueError, match="zero"):
        common.ratio(np.ones(3), np.zeros(3), np.arange(3, dtype=np.int32))


def test_a_comparison_of_quality_prints_means_and_their_ratio(capsys):
    line = common.quality(
        name="a_benchmark",
        peer="a_peer",
        metric="ndcg@20",
        ours=np.full(5, 0.3),
        theirs=np.full(5, 0.2),
        groups=np.arange(5, dtype=np.int32),
        repeats=3,
        sizes={"cases": 5},
        versions={},
        best="a model",
    )
    assert json.loads(capsys.readouterr().out) == line
    assert (line["ours"], line["theirs"], line["ratio"], line["interval"]) == (0.3, 0.2, 1.5, [1.5, 1.5])
    assert (line["best"], line["repeats"]) == ("a model", 3)


def test_further_fields_are_read_after_the_runs(capsys):
    seen = {}

    def theirs():
        seen["bound"] = "lower"
        return 4.0

    line = _compared(capsys, [1.0] * 5, [], theirs=theirs, higher_is_better=False, more=seen)
    assert line["bound"] == "lower"
