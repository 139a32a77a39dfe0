"""Recorded canaries: what is read of them, over which intervals, and what the command says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matinee import cli
from matinee.canary.judge import Schedule
from matinee.canary.recorded import judged, read_recorded
from matinee.errors import InvalidInput, NotFound

CONFIG = {
    "name": "api",
    "metrics": [
        {
            "name": "errors",
            "groups": ["health"],
            "analysisConfigurations": {"canary": {"direction": "increase"}},
        },
        {"name": "latency", "groups": ["speed"]},
    ],
    "classifier": {"groupWeights": {"health": 60, "speed": 40}},
}


def pair(
    name: str, control: list[Any], experiment: list[Any], step_ms: int | None = 60_000
) -> dict[str, Any]:
    scope = {"scopeName": "default", "location": "eu", "stepMillis": step_ms}
    return {
        "name": name,
        "id": "1",
        "tags": {},
        "values": {"control": control, "experiment": experiment},
        "scopes": {"control": scope, "experiment": scope},
        "attributes": {},
    }


def pairs(harm_from: int = 60, points: int = 60) -> list[dict[str, Any]]:
    """Errors of the experiment double from a minute on."""
    draw = np.random.default_rng(3)
    errors, worse = draw.poisson(20, (2, points)).astype(float)
    worse[harm_from:] *= 2
    latency = draw.lognormal(3, 0.1, (2, points))
    return [
        pair("errors", errors.tolist(), worse.tolist()),
        pair("latency", latency[0].tolist(), latency[1].tolist()),
    ]


def written(folder: Path, name: str, content: object) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def test_missing_values_in_every_spelling(tmp_path: Path) -> None:
    path = tmp_path / "samples.json"
    path.write_text(json.dumps([pair("errors", [1, None, "NaN"], [2.5, "Infinity", float("nan")])]))
    read = read_recorded(path)
    np.testing.assert_array_equal(read.samples["errors"].control, [1, np.nan, np.nan])
    np.testing.assert_array_equal(read.samples["errors"].experiment, [2.5, np.inf, np.nan])
    assert read.step_s == 60


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"name": "errors"}, "samples.metrics"),
        ([{"values": {}}], "samples.metrics[0].name"),
        ([{"name": "errors", "values": {"control": [1]}}], "samples.metrics[0].values.experiment"),
        ([pair("errors", [1, "one"], [1])], 'samples.metrics[0].values.control[1] is "one"'),
        ([pair("errors", [True], [1])], "samples.metrics[0].values.control[0] is true"),
        ([pair("errors", [1], [1]), pair("errors", [1], [1])], "metric errors stands twice"),
    ],
)
def test_what_is_not_accepted_is_named(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_recorded(written(tmp_path, "samples", content))
    assert said in str(refused.value)


def test_windows_grow_or_slide(tmp_path: Path) -> None:
    read = read_recorded(written(tmp_path, "samples", pairs(points=45)))
    growing = read.windows(Schedule(lifetime_s=3600, interval_s=1200, begin_after_s=60))
    assert [len(each["errors"].control) for each in growing] == [20, 40]
    np.testing.assert_array_equal(growing[0]["errors"].control, read.samples["errors"].control[1:21])
    sliding = read.windows(Schedule(lifetime_s=1200, interval_s=600, lookback_s=300))
    assert [len(each["latency"].control) for each in sliding] == [5, 5]
    np.testing.assert_array_equal(sliding[1]["latency"].control, read.samples["latency"].control[15:20])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pairs(points=9), "9 values every 60 s end before the first interval, 600 s"),
        ([], "stepMillis"),
        ([pair("errors", [1], [1], None)], "stepMillis"),
        ([pair("errors", [1], [1], 0)], "stepMillis"),
        ([pair("errors", [1], [1]), pair("latency", [1], [1], 1000)], "stepMillis"),
    ],
)
def test_windows_that_cannot_be_cut(tmp_path: Path, content: object, said: str) -> None:
    read = read_recorded(written(tmp_path, "samples", content))
    with pytest.raises(InvalidInput) as refused:
        read.windows(Schedule(lifetime_s=1200, interval_s=600))
    assert said in str(refused.value)


def test_a_harm_that_comes_late_stops_the_analysis_there(tmp_path: Path) -> None:
    config, samples = written(tmp_path, "config", CONFIG), written(tmp_path, "samples", pairs(harm_from=20))
    request = written(
        tmp_path,
        "request",
        {"lifetimeDurationMins": 60, "analysisIntervalMins": 20, "thresholds": {"pass": 90, "marginal": 45}},
    )
    found = judged(config, samples, request=request, mode="kayenta", seed=0)
    assert found.analysis
    assert found.analysis.scores == [100, 40]
    assert (found.verdict, found.analysis.stopped) == ("fail", True)
    assert len(found.samples["errors"].control) == 40
    lenient = written(
        tmp_path,
        "lenient",
        {"lifetimeDurationMins": 60, "analysisIntervalMins": 20, "thresholds": {"pass": 40, "marginal": 30}},
    )
    again = judged(config, samples, request=lenient, mode="kayenta", seed=0)
    assert again.analysis
    assert (again.verdict, again.analysis.scores) == ("pass", [100, 40, 40])
    whole = judged(config, written(tmp_path, "quiet", pairs()), request=None, mode="kayenta", seed=0)
    assert (whole.verdict, whole.analysis) == ("pass", None)


def test_a_file_that_is_not_there_or_not_json(tmp_path: Path) -> None:
    config = written(tmp_path, "config", CONFIG)
    with pytest.raises(NotFound, match=r"nowhere\.json"):
        judged(config, tmp_path / "nowhere.json", request=None, mode="strict", seed=0)
    (tmp_path / "text.json").write_text("errors: 1")
    with pytest.raises(InvalidInput, match="samples: not JSON"):
        judged(config, tmp_path / "text.json", request=None, mode="strict", seed=0)
    with pytest.raises(NotFound, match=r"nowhere\.json"):
        judged(config, config, request=tmp_path / "nowhere.json", mode="strict", seed=0)


def test_the_command_tells_each_metric_and_ends_by_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(written(tmp_path, "config", CONFIG))
    good, bad = (written(tmp_path, f"from-{start}", pairs(harm_from=start)) for start in (60, 0))
    page = tmp_path / "page.html"
    assert cli.main(["judge", config, str(good), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "pass"
    assert cli.main(["judge", config, str(bad), "--mode", "kayenta", "--report", str(page), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [(each["metric"], each["label"]) for each in told["metrics"]] == [
        ("errors", "High"),
        ("latency", "Pass"),
    ]
    assert (told["scores"], told["verdict"], told["warnings"], told["page"]) == (
        [40.0],
        "fail",
        [],
        str(page),
    )
    assert "errors" in page.read_text()
    assert cli.main(["judge", config, str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
