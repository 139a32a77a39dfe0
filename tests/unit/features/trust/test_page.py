"""The catalogue page: everything is on it, nothing on it is live but its own script."""

from __future__ import annotations

from dataclasses import asdict
from html.parser import HTMLParser
from typing import Any

import pyarrow as pa
import pytest

from matinee.features.trust.distribution import distribution
from matinee.features.trust.page import _percent, _seconds, page

NOW = 1_700_000_000_000_000
EVIL = '<script>alert("1")</script>&\'"'
VOID = {"meta", "input", "br", "line"}


def facts(**given: Any) -> dict[str, Any]:
    values = pa.chunked_array([pa.array([1, 2, 2, None], pa.int64())])
    return {
        "view": "v",
        "name": "f",
        "description": "what it is",
        "type": "integer",
        "entity": "member",
        "key": "member_id",
        "owner": "someone",
        "view_description": "a view",
        "view_events": ["play"],
        "source": {"computed_by": "stream", "events": ["play"], "function": "count", "column": ""},
        "window": "last 7 d",
        "ttl_s": 0.0,
        "late": "every event counts",
        "freshness": {
            "objective_s": 5.0,
            "p50_s": 0.1,
            "p99_s": 0.2,
            "staleness_s": 3.0,
            "measured": NOW,
            "decision": "fresh",
            "reason": "",
        },
        "services": ["serving"],
        "models": ["dnn"],
        "expect": {"low": 0},
        "checked": NOW,
        "violations": [],
        "consistency": {"share": 1.0, "compared": 9, "equal": 9, "bound": 0.99, "examples": []},
        "origin": "online",
        "distribution": asdict(distribution(values)),
        **given,
    }


class Elements(HTMLParser):
    """Start tags with their attributes, text, and whether tags nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_each_feature_is_a_row_under_its_view() -> None:
    read = Elements(page([facts(), facts(name="g"), facts(view="w", name="h")], made=NOW))
    rows = [attrs for tag, attrs in read.tags if tag == "tr" and "data-text" in attrs]
    assert len(rows) == 3
    assert [attrs["data-view"] for tag, attrs in read.tags if tag == "section"] == ["v", "w"]
    text = " ".join(read.text)
    for each in (
        "what it is",
        "someone",
        "last 7 d",
        "count()",
        "serving",
        "model dnn",
        "at least 0",
        "9 of 9",
        "200 ms p99",
        "3 s ago",
    ):
        assert each in text


def test_nothing_from_outside_becomes_markup() -> None:
    evil = facts(
        **dict.fromkeys(
            ("view", "name", "description", "type", "owner", "view_description", "window", "late"), EVIL
        ),
        services=[EVIL],
        models=[EVIL],
        consistency={
            "share": 0.5,
            "compared": 2,
            "equal": 1,
            "bound": 0.9,
            "examples": [{"key": EVIL, "served": [EVIL], "recomputed": EVIL}],
        },
        distribution={
            "kind": "text",
            "rows": 1,
            "nulls": 0,
            "bars": [{"label": EVIL, "count": 1}],
            "low": EVIL,
            "median": EVIL,
            "high": EVIL,
            "top": [],
        },
    )
    read = Elements(page([evil], made=NOW))
    assert [tag for tag, _ in read.tags].count("script") == 1
    assert "alert" not in "".join(read.text[read.text.index(next(t for t in read.text if "function" in t)) :])
    assert not any(name.startswith("on") for _, attrs in read.tags for name in attrs if name != "onsubmit")


def test_it_asks_for_nothing_from_elsewhere() -> None:
    read = Elements(page([facts()], made=NOW))
    assert not any({"src", "href"} & attrs.keys() for _, attrs in read.tags)
    assert "url(" not in page([facts()], made=NOW)
    assert "@import" not in page([facts()], made=NOW)


def test_problems_are_marked() -> None:
    wrong = {"share": 0.5, "compared": 2, "equal": 1, "bound": 0.9, "examples": []}
    violation = {"rule": "low", "count": 1, "rows": 5, "found": -1.0, "origin": "online"}
    late = {**facts()["freshness"], "decision": "late"}
    given = [facts(), facts(consistency=wrong), facts(violations=[violation]), facts(freshness=late)]
    read = Elements(page(given, made=NOW))
    marks = [attrs["data-problem"] for tag, attrs in read.tags if tag == "tr" and "data-text" in attrs]
    assert marks == ["", "1", "1", "1"]
    assert "not met" in " ".join(read.text)


def test_what_is_not_known_is_said_to_be_so() -> None:
    fresh = {**dict.fromkeys(facts()["freshness"]), "decision": "hold", "reason": ""}
    unknown = facts(
        freshness=fresh,
        services=[],
        models=[],
        expect={},
        checked=None,
        consistency=None,
        origin="",
        distribution=None,
    )
    text = " ".join(Elements(page([unknown], made=NOW)).text)
    for each in ("not measured", "nobody", "not compared", "no values yet"):
        assert each in text
    assert Elements(page([], made=NOW)).tags


def test_accessible_names_are_there() -> None:
    read = Elements(page([facts()], made=NOW))
    assert ("html", {"lang": "en"}) in read.tags
    assert all(attrs.get("scope") for tag, attrs in read.tags if tag == "th")
    assert all(attrs.get("aria-label") for tag, attrs in read.tags if tag == "svg")
    assert any(tag == "caption" for tag, _ in read.tags)
    ids = [attrs["id"] for _, attrs in read.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("share", "shown"),
    [(1.0, "100%"), (0.0, "0%"), (0.98, "98.00%"), (0.99995, "99.9950%"), (1 - 1e-9, "99.9999%")],
)
def test_a_share_is_never_rounded_up_to_all(share: float, shown: str) -> None:
    assert _percent(share) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0123, "12 ms"), (1.5, "1.5 s"), (60, "1 min"), (90, "90 s"), (7200, "2 h"), (172_800, "2 d")],
)
def test_durations_are_short(seconds: float, shown: str) -> None:
    assert _seconds(seconds) == shown
