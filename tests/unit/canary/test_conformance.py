"""Cases are compared as their records say; disagreements are told and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from matinee.canary.conformance import disagreements, main

QUANTILE = {"subject": "normal_quantile", "params": {"p": 0.975}}


def record(expected: Any, compare: Any = None, **fields: Any) -> dict[str, Any]:
    case = {"suite": "s", "name": "n", "expected": expected, **QUANTILE, **fields}
    return case if compare is None else {**case, "compare": compare}


def agrees(case: dict[str, Any]) -> bool:
    found, tried = disagreements([case])
    assert tried == 1
    return not found


@pytest.mark.parametrize(
    ("compare", "near", "far"),
    [
        ({"mode": "abs", "abs_tol": 0.01}, 1.95, 1.94),
        ({"mode": "rel", "rel_tol": 0.01}, 1.95, 1.93),
        ({"mode": "round", "decimals": 1}, 2.0, 2.1),
        ({"mode": "exact", "advice": "relative"}, 1.959963984540055, 1.9599639),
        ({"mode": "per_field", "fields": {"value": {"mode": "abs", "abs_tol": 1}}}, 1.0, 0.9),
        ({"mode": "per_field", "fields": {}, "other": {"mode": "abs", "abs_tol": 1}}, 1.0, 0.9),
        ({"mode": "strict_containment", "meaning": "inside"}, [1.9, 2.0], [1.97, 2.0]),
    ],
)
def test_a_mode_tells_near_from_far(compare: Any, near: Any, far: Any) -> None:
    assert agrees(record({"value": near}, compare))
    assert not agrees(record({"value": far}, compare))


def test_exact_is_equal() -> None:
    values = {"subject": "percentile", "params": {"p": 50}, "values": [1.0, 2.0]}
    assert agrees(record({"value": 1.5}, **values))
    assert not agrees(record({"value": 1.5 + 1e-15}, **values))


def test_words_stand_for_what_json_lacks() -> None:
    ratio = {"subject": "mean_ratio", "params": {}, "control": [0.0], "experiment": ["Infinity"]}
    assert agrees(record({"value": "NaN"}, **ratio))
    assert not agrees(record({"value": 1.0}, **ratio))
    gone = {"subject": "transform", "params": {"op": "remove_nans"}, "values": ["NaN", "-Infinity", 2]}
    assert agrees(record({"values": ["-Infinity", 2.0]}, **gone))


CLASSIFIED = {
    "subject": "mann_whitney",
    "control": [1.0, 2.0, 3.0, 4.0, 5.0],
    "experiment": [11, 12, 13, 14, 15],
}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, {"label": "High", "critical": False, "reason_present": True}),
        ({"direction": "decrease"}, {"label": "Pass"}),
        ({"critical": True, "critical_increase": 5.0}, {"label": "High", "critical": False}),
        ({"critical": True}, {"label": "High", "critical": True}),
        ({"effect_size_measure": "cles"}, {"label": "High", "ratio": 1.0}),
        ({"effect_size_measure": "cles", "allowed_increase": 1.1}, {"label": "Pass"}),
        ({"tolerance": 0.99}, {"label": "Pass"}),
    ],
)
def test_parameters_that_are_missing_take_their_defaults(params: Any, expected: Any) -> None:
    assert agrees({**record(expected), **CLASSIFIED, "params": params})


def test_means_are_compared_by_sign_alone() -> None:
    case = {"subject": "mean_inequality", "control": [1.0], "experiment": [1.01], "params": {}}
    assert agrees(record({"label": "High"}, **case))
    assert agrees(record({"label": "Pass"}, **{**case, "params": {"direction": "decrease"}}))
    assert agrees(record({"label": "Nodata", "reason_present": True}, **{**case, "experiment": []}))


def test_what_is_not_known_disagrees() -> None:
    (line,), _ = disagreements([record({"value": 1}, subject="tea_leaves")])
    assert line.startswith("s/n: subject tea_leaves; mann_whitney")
    (line,), _ = disagreements([record({"value": 1.96}, {"mode": "vaguely"})])
    assert "compare.mode is vaguely" in line
    (line,), _ = disagreements([record({"width": 1})])
    assert line == "s/n: width: expected 1, got None"


def test_end_to_end_facts_hold_in_most_draws() -> None:
    gauge = {"integer_low": 10, "integer_high_exclusive": 20}
    fact = {
        "name": "doubled",
        "control": gauge,
        "experiment": {"constant": 40},
        "critical": True,
        "score_thresholds": {"pass": 75, "marginal": 50},
        "expected": {"label": "High", "score": 0.0, "passed": False},
    }
    assert disagreements({"integration_facts": [fact]}) == ([], 1)
    (line,), _ = disagreements({"integration_facts": [{**fact, "expected": {"passed": True}}]})
    assert line == "integration/doubled: canary passed: expected True, got 0 of 21 times"


def test_the_command_counts_and_its_status_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cases.json"
    close = {"mode": "abs", "abs_tol": 1e-6}
    path.write_text(
        json.dumps({"records": [record({"value": 1.959964}, close), record({"value": 2.0}, close)]})
    )
    assert main([str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("s/n: value: expected 2.0, got 1.9599")
    assert lines[1] == f"{path}: 2 cases, 1 disagree"
    path.write_text(json.dumps({"records": [record({"value": 1.959964}, close)]}))
    assert main([str(path)]) == 0
    assert main([str(tmp_path / "missing.json")]) == main([]) == 2
