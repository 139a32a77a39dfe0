"""The catalogue of features: what each is, where it comes from, who uses it and whether it can be trusted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matinee.config import Settings
from matinee.errors import StorageError
from matinee.features.transforms import VIEWS
from matinee.features.trust.distribution import distribution
from matinee.features.trust.freshness import judge_freshness, measured
from matinee.features.trust.page import page
from matinee.monitoring.features import CONSISTENCY, EXPECTATIONS, FRESHNESS, last
from matinee.schema import WATCH_TYPES, Aggregate, AggregateView, Window

if TYPE_CHECKING:
    from matinee.features.store.declared import DeclaredView

PAGE = "features.html"

_KINDS = {"int64": "integer", "double": "number", "string": "text"}


def write_catalogue(settings: Settings, features: list[dict[str, Any]] | None = None) -> Path:
    """Write the page `reports/features.html` of the home, whole or not at all; returns its path.

    Args:
        features: what `describe_features` gave; None: described now.

    Raises:
        Unavailable: the feature store was never applied.
        StorageError: the page cannot be written.
    """
    described = describe_features(settings) if features is None else features
    path = settings.paths.reports / PAGE
    draft = path.with_name(f".{PAGE}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(page(described, made=time.time_ns() // 1000), encoding="utf-8")
        draft.replace(path)
    except OSError as failure:
        raise StorageError(f"feature catalogue {path}: {failure}") from failure
    return path


def describe_features(
    settings: Settings, *, stream_status: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Every declared feature as a JSON-ready object, ordered by view, in the order of declaration.

    Args:
        stream_status: of the streaming features now; None: as the monitor last kept it.

    Returns:
        One a feature: view, name, description, type, entity, key, owner, view_description, view_events,
        source (computed_by, events, column, function), window, ttl_s (0: for ever), late (policy in words),
        freshness (objective_s, p50_s, p99_s, staleness_s, measured, decision, reason), services, models,
        expect, checked and violations (`checked` null: never looked at), consistency (null: never
        compared), origin and distribution of the values ("" and null: there are none). Times are
        microseconds.

    Raises:
        Unavailable: the feature store was never applied.
    """
    from matinee.features.store import FeatureStore
    from matinee.features.store.declared import declared
    from matinee.features.trust.values import sample
    from matinee.models import discover

    store = FeatureStore(settings)
    registry = declared(settings)
    readers: dict[tuple[str, str], list[str]] = {}
    for service in registry.services.values():
        for read, names in service.features.items():
            for name in names:
                readers.setdefault((read, name), []).append(service.name)
    models: dict[str, list[str]] = {}
    for spec in discover().values():
        if spec.feature_service:
            models.setdefault(spec.feature_service, []).append(spec.name)
    freshness = _freshness(settings, stream_status)
    violations, checked = _violations(settings, stream_status)
    agreement = _agreement(settings)

    described: list[dict[str, Any]] = []
    for view in registry.views.values():
        aggregate = view.aggregate
        expected = view.expected.features
        values, origin = sample(settings, store, view)
        whole = _view(view, aggregate, freshness.get(view.name, {}))
        by_name = {each.name: each for each in aggregate.aggregates} if aggregate else {}
        for feature in view.features:
            place = (view.name, feature.name)
            services = readers.get(place, [])
            one = by_name.get(feature.name)
            expect = expected.get(feature.name)
            described.append(
                {
                    **whole,
                    "name": feature.name,
                    "description": feature.description,
                    "type": kind_in_words(str(feature.type)),
                    "source": {**whole["source"], **_source(one)},
                    "window": window_in_words(one.window) if one else feature.tags.get("window", ""),
                    "services": services,
                    "models": sorted({model for service in services for model in models.get(service, ())}),
                    "expect": {k: v for k, v in asdict(expect).items() if v is not None} if expect else {},
                    "checked": checked.get(view.name) if expect else None,
                    "violations": violations.get(place, []),
                    "consistency": agreement.get(place),
                    "origin": origin,
                    "distribution": asdict(distribution(values[feature.name])) if origin else None,
                }
            )
    return described


def window_in_words(window: Window) -> str:
    """As in "last 7 d, moved every 6 h"."""
    if window.kind == "sliding":
        return f"last {duration(window.size)}, moved every {duration(window.hop)}"
    if window.kind == "tumbling":
        return f"the current {duration(window.size)}"
    if window.kind == "session":
        return f"session, ends after {duration(window.gap)} of silence"
    return "all time"


def kind_in_words(arrow: str) -> str:
    """An Arrow type as a reader calls it: "integer", "list of text"."""
    if arrow.startswith("list<"):
        return f"list of {_KINDS.get(arrow.split(': ')[1].rstrip('>'), arrow)}"
    return _KINDS.get(arrow, arrow)


def duration(time: timedelta) -> str:
    """As in "7 d", "30 min", "1.5 s"."""
    seconds = time.total_seconds()
    for name, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {name}"
    return f"{seconds:g} s"


def _view(view: DeclaredView, aggregate: AggregateView | None, fresh: Mapping[str, Any]) -> dict[str, Any]:
    """What all features of a view have in common."""
    text = view.tags.get("freshness_s", "")
    found = fresh.get("found")
    objective = float(text) if text else found.objective_s if found else None
    status = {"objective_s": objective, "p50_s": None, "p99_s": None, "staleness_s": None, "measured": None}
    decision = None
    if found is not None:
        staleness = found.staleness_s(fresh["now"])
        status |= {"p50_s": found.p50_s, "p99_s": found.p99_s, "staleness_s": staleness}
        status["measured"] = fresh["now"]
        decision = judge_freshness(found, objective)
    computed_by = view.tags.get("computed_by", "")
    events = _events(view.name, aggregate, computed_by)
    return {
        "view": view.name,
        "view_description": view.description,
        "entity": view.key.removesuffix("_id"),
        "key": view.key,
        "owner": view.owner,
        "view_events": events,
        "source": {"computed_by": computed_by, "events": events},
        "ttl_s": view.ttl.total_seconds(),
        "late": _late(view.name, aggregate),
        "freshness": {
            **status,
            "decision": decision.action if decision else "hold",
            "reason": decision.reason if decision else "not measured",
        },
    }


def _events(name: str, aggregate: AggregateView | None, computed_by: str) -> list[str]:
    """Event types that make rows of the view; "all", or nothing where no event does."""
    if aggregate is not None:
        return [str(each) for each in aggregate.types] or ["all"]
    if name in VIEWS:
        return [str(each) for each in WATCH_TYPES] if VIEWS[name].watches_only else ["all"]
    return ["all"] if "stream" in computed_by else []


def _late(name: str, aggregate: AggregateView | None) -> str:
    if aggregate is None:
        return "every event counts, however late" if name in VIEWS else "does not come from events"
    if aggregate.lateness is None:
        return "every event counts, however late"
    what = "left out" if aggregate.late == "drop" else "left out and sent to the dead letters"
    return f"more than {duration(aggregate.lateness)} late: {what}"


def _source(aggregate: Aggregate | None) -> dict[str, Any]:
    if aggregate is None:
        return {}
    types = {"events": [str(each) for each in aggregate.types]} if aggregate.types else {}
    return {**types, "function": str(aggregate.function), "column": aggregate.column}


def _freshness(settings: Settings, status: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    kept: Mapping[str, Any] = last(settings, FRESHNESS) if status is None else status
    now = int(kept.get("time") or time.time_ns() // 1000)
    return {name: {"found": each, "now": now} for name, each in measured(kept).items()}


def _violations(
    settings: Settings, status: Mapping[str, Any] | None
) -> tuple[dict[tuple[str, str], list[dict[str, Any]]], dict[str, int]]:
    """By view and feature what the last check and the stream found, and when each view was looked at."""
    kept = last(settings, EXPECTATIONS)
    stream = last(settings, FRESHNESS) if status is None else status
    streamed = [{**each, "origin": "stream"} for each in stream.get("violations") or ()]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in [*kept.get("violations", ()), *streamed]:
        found.setdefault((each["view"], each["feature"]), []).append(each)
    looked = {shown.rpartition(" (")[0]: int(kept["time"]) for shown in kept.get("rows", ())}
    return found, looked


def _agreement(settings: Settings) -> dict[tuple[str, str], dict[str, Any]]:
    kept = last(settings, CONSISTENCY)
    return {
        (view["view"], each["feature"]): {
            **each,
            "bound": kept["bound"],
            "time": kept["time"],
            "behind": view["behind"],
            "rows": view["rows"],
            "unsettled": view["unsettled"],
        }
        for view in kept.get("views", ())
        for each in view["features"]
    }


def as_json(features: list[dict[str, Any]]) -> str:
    """What `describe_features` gave, as text."""
    return json.dumps(features, indent=1, ensure_ascii=False)
