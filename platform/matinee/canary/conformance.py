"""Facts about Kayenta's judge, each tried on ours: `python -m matinee.canary.conformance FILE`.

Prints every disagreement and a count; exit status 1 where there is one. The format of a file is told beside
the cases.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtri

from matinee.canary.judge import CanaryConfig, EffectSize, Metric, Samples, judge
from matinee.canary.judge.classify import CONFIDENCE, TOLERANCE, classify, label, prepare
from matinee.canary.judge.decide import results
from matinee.canary.judge.ranks import Ranks
from matinee.canary.judge.rows import Bools, Floats, Rows, cohen_d, mean_ratio, outliers_iqr, outliers_sigma
from matinee.canary.judge.score import Label, score
from matinee.errors import InvalidInput

ADVISED = 1e-9
"""Relative tolerance of an exact figure whose record advises one."""
POINTS = 60
"""A side of an end-to-end fact: a minute of steps of one second."""
RUNS = 21
"""Draws of an end-to-end fact: it tells of random gauges, so the outcome of most of them counts."""

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A metric as the scorer sees it."""

    name: str
    groups: Sequence[str]
    label: Label
    critical: bool


def main(arguments: Sequence[str]) -> int:
    """Try each file; 0 where everything agrees, 1 where something does not, 2 where a file can't be read."""
    if not arguments:
        print("usage: python -m matinee.canary.conformance FILE ...", file=sys.stderr)
        return 2
    failed = 0
    for name in arguments:
        try:
            cases = json.loads(Path(name).read_text())
        except (OSError, ValueError) as problem:
            print(f"{name}: {problem}", file=sys.stderr)
            return 2
        found, tried = disagreements(cases)
        for line in found:
            print(line)
        print(f"{name}: {tried} cases, {len(found)} disagree")
        failed += len(found)
    return int(failed > 0)


def disagreements(cases: Record | Sequence[Record]) -> tuple[list[str], int]:
    """What disagrees, a line each, and how many cases were tried.

    Args:
        cases: a file's content: an object with `records`, `integration_facts` or both, or a list of records.
    """
    content = cases if isinstance(cases, Mapping) else {"records": cases}
    records, facts = content.get("records", []), content.get("integration_facts", [])
    found = []
    for record in records:
        problems = _tried(record)
        if problems:
            found.append(f"{record.get('suite', '-')}/{record.get('name', '-')}: {'; '.join(problems)}")
    for fact in facts:
        problems = _end_to_end(fact)
        if problems:
            found.append(f"integration/{fact.get('name', '-')}: {'; '.join(problems)}")
    return found, len(records) + len(facts)


def _tried(record: Record) -> list[str]:
    subject = str(record.get("subject"))
    if subject not in _SUBJECTS:
        return [f"subject {subject}; {', '.join(_SUBJECTS)} are known"]
    how = record.get("compare") or {"mode": "exact"}
    try:
        got = _SUBJECTS[subject](_read(record))
        return [
            f"{name}: expected {want}, got {got.get(name)}"
            for name, want in _read(record["expected"]).items()
            if name not in got or not _agrees(got[name], want, _mode(how, name))
        ]
    except Exception as problem:  # a case that breaks ours disagrees, whatever it breaks
        return [f"{type(problem).__name__}: {problem}"]


def _read(value: Any) -> Any:
    """JSON with the words that stand for what it lacks turned into numbers."""
    if isinstance(value, Mapping):
        return {name: _read(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_read(each) for each in value]
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def _mode(how: Record, field: str) -> Record:
    if how.get("mode") != "per_field":
        return how
    found: Record = how.get("fields", {}).get(field, how.get("other", {"mode": "exact"}))
    return found


def _agrees(got: Any, want: Any, how: Record) -> bool:
    if how.get("mode") == "strict_containment":
        return _inside(got, want)
    if isinstance(want, Mapping):
        return isinstance(got, Mapping) and all(
            name in got and _agrees(got[name], each, how) for name, each in want.items()
        )
    if isinstance(want, list):
        got = list(got.values()) if isinstance(got, Mapping) else got
        return len(got) == len(want) and all(_agrees(*pair, how) for pair in zip(got, want, strict=True))
    if isinstance(want, bool | str) or want is None or isinstance(got, bool | str):
        return bool(got == want)
    if math.isnan(want) or math.isinf(want):
        return math.isnan(got) if math.isnan(want) else got == want
    tolerance = {
        "exact": ADVISED * abs(want) if "advice" in how else 0.0,
        "abs": how.get("abs_tol", 0.0),
        "rel": how.get("rel_tol", 0.0) * abs(want),
        "round": 0.5 * 10.0 ** -how.get("decimals", 0) * (1 + ADVISED),
    }
    mode = how.get("mode", "exact")
    if mode not in tolerance:
        known = ", ".join([*tolerance, "strict_containment", "per_field"])
        raise InvalidInput(f"compare.mode is {mode}; {known} are known")
    return bool(abs(got - want) <= tolerance[mode])


def _inside(got: Any, want: Any) -> bool:
    """Whether a number lies inside an interval, or an interval inside another, without touching its ends.

    The interval is the expected one, unless a single number is expected.
    """
    (low, high), (least, most) = (each if isinstance(each, list) else [each, each] for each in (want, got))
    return bool(low < least and most < high if isinstance(want, list) else least < low and high < most)


def _pair(record: Record) -> tuple[Rows, Rows]:
    """Experiment and control; "x" and "y" where the record calls them so."""
    sides = (("experiment", "x"), ("control", "y"))
    first, second = (record[name] if name in record else record[other] for name, other in sides)
    return _rows(first), _rows(second)


def _rows(values: Sequence[float]) -> Rows:
    return Rows(np.array([values], np.float64).reshape(1, -1))


def _values(record: Record, name: str = "values") -> Floats:
    return np.array(record[name], np.float64)


def _mann_whitney(record: Record) -> dict[str, Any]:
    params = record.get("params", {})
    limits = ("allowed_increase", "allowed_decrease", "critical_increase", "critical_decrease")
    measure = params.get("effect_size_measure", "mean_ratio")
    metric = _metric(
        params,
        effect=EffectSize(
            measure="cles" if measure == "cles" else "meanRatio",
            **{name: params.get(name, 1.0) for name in limits},
        ),
    )
    found = classify(
        [metric],
        *(prepare([metric], [_values(record, side)]) for side in ("control", "experiment")),
        seed=0,
        tolerance=params.get("tolerance", TOLERANCE),
        confidence=params.get("confidence_level", CONFIDENCE),
    )
    (result,) = results([metric], found)
    return {
        "label": result.label,
        "critical": result.critical,
        "ratio": result.effect,
        "reason_present": bool(result.reason),
    }


def _mean_inequality(record: Record) -> dict[str, Any]:
    metric = _metric(record.get("params", {}))
    control, experiment = (prepare([metric], [_values(record, side)]) for side in ("control", "experiment"))
    full = bool(control.count[0] and experiment.count[0])
    same = full and np.array_equal(control.values, experiment.values, equal_nan=True)
    above = float(experiment.mean[0] - control.mean[0]) if full and not same else 0.0
    name = label(
        metric,
        high=above > 0 and metric.direction != "decrease",
        low=above < 0 and metric.direction != "increase",
        has_data=full,
    )
    ratio = float(mean_ratio(experiment, control)[0]) if full and not same else 1.0
    critical = metric.critical and name == "Nodata"
    return {"label": name, "critical": critical, "ratio": ratio, "reason_present": not full}


def _metric(params: Record, **more: Any) -> Metric:
    return Metric(
        name="metric",
        direction=params.get("direction", "either"),
        nan_strategy=params.get("nan_strategy", "remove"),
        critical=params.get("critical", False),
        must_have_data=params.get("must_have_data", False),
        **more,
    )


def _scorer(record: Record) -> dict[str, Any]:
    metrics = [
        Scored(
            name=str(each.get("id", place)),
            groups=each.get("groups", []),
            label=each["label"],
            critical=each.get("critical", False),
        )
        for place, each in enumerate(record["metrics"])
        if not each.get("muted", False)
    ]
    result = score(metrics, record.get("params", {}).get("group_weights") or {})
    return {
        "summary_score": result.value,
        "group_scores": dict(result.groups),
        "group_scores_sorted": sorted(result.groups.values()),
    }


def _outliers(values: Floats, params: Record) -> Bools:
    if params.get("method", "iqr") == "k_sigma":
        return outliers_sigma(values, params.get("k", 3.0))
    sensitivity = params.get("reduce_sensitivity", False)
    return outliers_iqr(values, params.get("factor", 1.5), reduce_sensitivity=sensitivity)


def _transform(record: Record) -> dict[str, Any]:
    params, values = record["params"], _values(record)
    if params["op"] == "remove_nans":
        values = values[~np.isnan(values)]
    elif params["op"] == "replace_nans":
        values = np.where(np.isnan(values), params.get("value", 0.0), values)
    elif params["op"] == "remove_outliers":
        values = values[~_outliers(values, params)]
    else:
        known = "remove_nans, replace_nans, remove_outliers"
        raise InvalidInput(f"params.op is {params['op']}; {known} are known")
    return {"values": values.tolist()}


def _interval(record: Record) -> dict[str, Any]:
    shift = Ranks(*_pair(record)).shift(record.get("params", {}).get("confidence_level", 0.95))
    return {
        "ci_low": float(shift.low[0]),
        "ci_high": float(shift.high[0]),
        "estimate": float(shift.estimate[0]),
    }


def _intermediate(record: Record) -> dict[str, Any]:
    confidence = record.get("params", {}).get("confidence_level", 0.95)
    ranks, z = Ranks(*_pair(record)), float(ndtri((1 + confidence) / 2))
    shift = ranks.shift(confidence)
    least, most = (float(ranks.z(end)[0]) for end in (ranks.least, ranks.most))
    return {
        "shift_min": float(ranks.least[0]),
        "shift_max": float(ranks.most[0]),
        "z_pos": z,
        "z_neg": -z,
        "z_minus_zpos_at_shift_min": least - z,
        "z_minus_zpos_at_shift_max": most - z,
        "z_minus_zneg_at_shift_min": least + z,
        "z_minus_zneg_at_shift_max": most + z,
        "root_at_zpos": float(shift.low[0]),
        "root_at_zneg": float(shift.high[0]),
        "root_at_zero": float(shift.estimate[0]),
    }


def _rank_sum(record: Record) -> dict[str, Any]:
    params = record.get("params", {})
    shift = np.array([params.get("shift", 0.0)])
    return {"value": float(Ranks(*_pair(record)).z(shift)[0]) - params.get("quantile", 0.0)}


_SUBJECTS: Mapping[str, Callable[[Record], dict[str, Any]]] = {
    "mann_whitney": _mann_whitney,
    "mean_inequality": _mean_inequality,
    "weighted_sum_scorer": _scorer,
    "outlier_detector": lambda r: {"is_outlier": _outliers(_values(r), r.get("params", {})).tolist()},
    "summary_statistics": lambda r: asdict(_rows(r["values"]).summaries()[0]),
    "percentile": lambda r: {"value": float(_rows(r["values"]).quantile(r["params"]["p"] / 100)[0])},
    "mean_ratio": lambda r: {"value": float(mean_ratio(*_pair(r))[0])},
    "cohen_d": lambda r: {"value": float(cohen_d(*_pair(r))[0])},
    "cles": lambda r: {"value": float(Ranks(*_pair(r)).superiority()[0])},
    "transform": _transform,
    "rank_sum_z_minus_quantile": _rank_sum,
    "normal_quantile": lambda r: {"value": float(ndtri(r["params"]["p"]))},
    "mann_whitney_ci": _interval,
    "mann_whitney_intermediate": _intermediate,
}


def _end_to_end(fact: Record) -> list[str]:
    """What of a fact about the whole judge does not hold in most draws of its gauges."""
    described = fact.get("metrics", [{**fact, "id": "metric"}])
    thresholds = fact.get("score_thresholds", {})
    config = CanaryConfig(
        metrics=[
            Metric(
                name=each["id"],
                **{name: each[name] for name in ("direction", "critical", "muted") if name in each},
            )
            for each in described
        ],
        passing=thresholds.get("pass", 75.0),
        marginal=thresholds.get("marginal", 50.0),
    )
    wanted = {(each["id"], "label"): each.get("expected", {}).get("label") for each in described}
    wanted |= {("canary", name): fact.get("expected", {}).get(name) for name in ("score", "passed")}
    seen: dict[tuple[str, str], list[Any]] = {key: [] for key, want in wanted.items() if want is not None}
    for seed in range(RUNS):
        draw = np.random.default_rng(seed)
        samples = {
            each["id"]: Samples(_gauge(each["control"], draw), _gauge(each["experiment"], draw))
            for each in described
        }
        judgement = judge(config, samples, mode="kayenta", seed=seed)
        got: dict[tuple[str, str], Any] = {(each.name, "label"): each.label for each in judgement.metrics}
        got |= {("canary", "score"): judgement.score, ("canary", "passed"): judgement.verdict == "pass"}
        for key, values in seen.items():
            values.append(got[key])
    return [
        f"{' '.join(key)}: expected {wanted[key]}, got {values.count(wanted[key])} of {RUNS} times"
        for key, values in seen.items()
        if values.count(wanted[key]) <= RUNS // 2
    ]


def _gauge(described: Record, draw: np.random.Generator) -> Floats:
    if "constant" in described:
        return np.full(POINTS, float(described["constant"]))
    drawn = draw.integers(described["integer_low"], described["integer_high_exclusive"], POINTS)
    return drawn.astype(np.float64)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
