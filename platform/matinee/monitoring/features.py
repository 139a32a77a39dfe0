"""Features under watch: what was served against the lake, expectations, freshness; reports and signal events.

Reports lie in `reports/features/` of the home, each replaced whole, so that the catalogue page, which needs
no running platform, shows what was last found.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from matinee.config import Settings
from matinee.errors import NotFound, StorageError
from matinee.features.trust.consistency import Consistency
from matinee.features.trust.expectations import (
    Policy,
    ViewExpectations,
    Violation,
    check,
    gate,
    merged,
)
from matinee.schema import AggregateView, Decision

CONSISTENCY = "consistency.json"
EXPECTATIONS = "expectations.json"
FRESHNESS = "freshness.json"


@dataclass(frozen=True, kw_only=True)
class FeatureAgreement:
    """How often a feature was served as the lake says.

    Args:
        compared: served rows held against the lake.
        share: equal / compared; None where nothing was compared.
        examples: some that differ, as `consistency.AGREEMENT` describes them.
    """

    feature: str
    compared: int
    equal: int
    share: float | None
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ViewAgreement:
    """How a view's served rows compare; figures as in `consistency.Consistency`."""

    view: str
    rows: int
    compared: int
    unsettled: int
    behind: int
    empty: int
    newest: int | None
    features: list[FeatureAgreement]


@dataclass(frozen=True, kw_only=True)
class ConsistencyReport:
    """What a comparison of the served log with the lake found.

    Args:
        time: microseconds.
        bound: share of each feature that must agree.
        decision: "agree", "disagree", or "hold" where nothing could be compared.
        reason: why.
    """

    time: int
    bound: float
    decision: str
    reason: str
    views: list[ViewAgreement]

    @property
    def below(self) -> list[tuple[str, str, float]]:
        """View, feature and share of those that agree too seldom, the worst first."""
        found = [
            (view.view, each.feature, each.share)
            for view in self.views
            for each in view.features
            if each.share is not None and each.share < self.bound
        ]
        return sorted(found, key=lambda each: each[2])


@dataclass(frozen=True, kw_only=True)
class ExpectationReport:
    """What a look at a home's values found.

    Args:
        time: microseconds.
        decision: "publish" where every expectation is met, else "hold".
        reason: why.
        rows: looked at, by "view (online)" or "view (offline)".
        violations: the fields of `expectations.Violation`, and the `origin` of the rows.
    """

    time: int
    decision: str
    reason: str
    rows: dict[str, int]
    violations: list[dict[str, Any]]


def check_consistency(
    settings: Settings, *, now: int | None = None, aggregates: Sequence[AggregateView] | None = None
) -> ConsistencyReport:
    """Hold the served log against the lake and keep the report.

    Args:
        now: microseconds, stands in for the clock.
        aggregates: the home's aggregate views; None: as its registry declares them, which is not opened
            where none of them was served (Feast takes seconds and hundreds of megabytes).

    Raises:
        NotFound: the home has no catalogue.
        StorageError: the report cannot be written.
    """
    from matinee.features.transforms import VIEWS
    from matinee.features.trust.recompute import consistency
    from matinee.features.trust.served import views

    if aggregates is None:
        known = set(views(settings.paths.served)) <= VIEWS.keys()
        aggregates = () if known else _aggregates(settings)
    at = time.time_ns() // 1000 if now is None else now
    found = [_agreement(each) for each in consistency(settings, aggregates=aggregates, now=at)]
    bound = settings.monitoring.consistency_bound
    decision = judge_consistency(found, bound)
    report = ConsistencyReport(
        time=at, bound=bound, decision=decision.action, reason=decision.reason, views=found
    )
    keep(settings, CONSISTENCY, report)
    return report


def judge_consistency(views: Sequence[ViewAgreement], bound: float) -> Decision:
    """ "hold" (nothing compared), "agree", or "disagree" where a feature's share is under the bound."""
    shares = {
        f"{view.view}.{each.feature}": each.share
        for view in views
        for each in view.features
        if each.share is not None
    }
    if not shares:
        return Decision(action="hold", reason="no served row could be compared")
    worst = min(shares, key=lambda name: shares[name])
    below = sum(share < bound for share in shares.values())
    evidence = {"share": shares[worst], "bound": bound, "features": len(shares), "below": below}
    if below:
        lowest = f"{worst} {shares[worst]:.2%}, under {bound:.2%}"
        reason = f"{below} of {len(shares)} features agree too seldom: {lowest}"
        return Decision(action="disagree", reason=reason, evidence=evidence)
    reason = f"each of {len(shares)} features agrees in {shares[worst]:.2%} of its rows or more"
    return Decision(action="agree", reason=reason, evidence=evidence)


def check_expectations(settings: Settings) -> ExpectationReport:
    """Hold a sample of online values and the whole offline build against what is expected; keep the report.

    Raises:
        Unavailable: the feature store was never applied.
        StorageError: the report cannot be written.
    """
    from matinee.features import offline
    from matinee.features.store import FeatureStore
    from matinee.features.store.declared import declared
    from matinee.features.trust.values import sample

    store = FeatureStore(settings)
    rows: dict[str, int] = {}
    violations: list[dict[str, Any]] = []
    found: list[Violation] = []

    def look(expected: ViewExpectations, table: pa.Table, origin: str) -> None:
        rows[f"{expected.view} ({origin})"] = table.num_rows
        each = check(expected, table)
        found.extend(each)
        violations.extend(asdict(violation) | {"origin": origin} for violation in each)

    for name, view in declared(settings).views.items():
        expected = view.expected
        if not expected.features:
            continue
        table, origin = sample(settings, store, view)
        if origin == "online":
            look(expected, table, origin)
        try:
            columns = list(expected.features)
            look(expected, offline.read(settings.paths.feast / "offline", name, columns), "offline")
        except NotFound:
            continue
    decision = gate(merged(found), Policy())
    report = ExpectationReport(
        time=time.time_ns() // 1000,
        decision=decision.action,
        reason=decision.reason,
        rows=rows,
        violations=violations,
    )
    keep(settings, EXPECTATIONS, report)
    return report


def consistency_event(report: ConsistencyReport) -> bytes:
    """The message that says so on the signals topic: features that agree too seldom, with their shares."""
    below = [{"view": view, "feature": feature, "share": share} for view, feature, share in report.below]
    return orjson.dumps(
        {
            "type": "feature_consistency",
            "schema_version": 1,
            "event_id": f"feature-consistency-{report.time}",
            "time": report.time,
            "bound": report.bound,
            "decision": report.decision,
            "reason": report.reason,
            "below": below,
        }
    )


def violation_event(violations: Sequence[Mapping[str, Any]], *, source: str, time_us: int) -> bytes:
    """The message that says so on the signals topic.

    Args:
        violations: the fields of `expectations.Violation` each.
        source: "stream" or "batch".
        time_us: microseconds.
    """
    return orjson.dumps(
        {
            "type": "feature_violation",
            "schema_version": 1,
            "event_id": f"feature-violation-{source}-{time_us}",
            "time": time_us,
            "source": source,
            "violations": [dict(each) for each in violations],
        }
    )


def keep(settings: Settings, name: str, report: Any) -> Path:
    """Write a report, whole or not at all; returns its path.

    Args:
        report: a dataclass or a mapping.

    Raises:
        StorageError: it cannot be written.
    """
    path = settings.paths.reports / "features" / name
    draft = path.with_name(f".{name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
        draft.replace(path)
    except OSError as failure:
        raise StorageError(f"feature report {path}: {failure}") from failure
    return path


def last(settings: Settings, name: str) -> dict[str, Any]:
    """A report as it was last kept; empty where there is none or it cannot be read."""
    try:
        found = orjson.loads((settings.paths.reports / "features" / name).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _aggregates(settings: Settings) -> list[AggregateView]:
    from matinee.features.store import FeatureStore

    return list(FeatureStore(settings).aggregate_views().values())


def _agreement(found: Consistency) -> ViewAgreement:
    features = [
        FeatureAgreement(**{**row, "examples": orjson.loads(row["examples"])})
        for row in found.agreement.to_pylist()
    ]
    return ViewAgreement(
        view=found.view,
        rows=found.rows,
        compared=found.compared,
        unsettled=found.unsettled,
        behind=found.behind,
        empty=found.empty,
        newest=found.newest,
        features=features,
    )
