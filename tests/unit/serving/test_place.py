"""Who is in which cell: stickiness through a rollout's steps as a law, and rules before the hash."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from matinee.errors import InvalidInput
from matinee.serving.place import (
    FORCED,
    NEW,
    Arm,
    Rules,
    Trial,
    asks_features,
    check_segment,
    holds,
    place,
)

MEMBERS = [f"m{i}" for i in range(400)]


def trial(share: float, salt: str = "rollout/1") -> Trial:
    return Trial(
        salt=salt,
        arms={
            "r1-baseline": Arm(version="3", share=share),
            "r1-canary": Arm(version="7", share=share),
        },
    )


def cell(member_id: str, rules: Rules, **traits: str | float) -> str:
    placed = place(member_id, rules, model="recommender", champion="3", traits=traits)
    assert placed is not None
    return placed[0]


@given(
    st.lists(st.floats(0.001, 0.5), min_size=1, max_size=6).map(sorted),
    st.dictionaries(st.sampled_from(["3", "4", "5"]), st.floats(0.1, 9.0)),
    st.integers(0, 10**6),
)
def test_stickiness_is_never_broken(steps: list[float], weights: dict[str, float], rollout: int) -> None:
    """Through any growing steps a member of an arm stays in it; all others stay in their cell or join one."""
    total = sum(weights.values())
    base = Rules(weights={version: weight / total for version, weight in weights.items()})
    members = [f"m{i}" for i in range(60)]
    before = {member: cell(member, base) for member in members}
    outside = dict(before)
    for share in steps:
        rules = replace(base, trial=trial(share, f"rollout/{rollout}"))
        after = {member: cell(member, rules) for member in members}
        for member in members:
            if before[member].startswith("r1-"):
                assert after[member] == before[member]
            else:
                assert after[member] in (outside[member], "r1-baseline", "r1-canary")
        before = after
    assert {member: cell(member, base) for member in members} == outside


def test_baseline_and_canary_are_equal_and_fresh() -> None:
    """Equal shares, dealt anew: the cells know nothing of the split's or of another rollout's."""
    rules = Rules(weights={"3": 0.5, "4": 0.5}, trial=trial(0.25))
    members = [f"m{i}" for i in range(8000)]
    cells = [cell(member, rules) for member in members]
    counts = [cells.count(name) for name in ("r1-baseline", "r1-canary", "v3", "v4")]
    assert chisquare(counts).pvalue > 1e-4
    old = {member: cell(member, replace(rules, trial=None)) for member in members}
    other = {member: cell(member, replace(rules, trial=trial(0.25, "rollout/2"))) for member in members}
    canary = [member for member, name in zip(members, cells, strict=True) if name == "r1-canary"]
    for again in (old, other):
        names = sorted(set(again.values()))
        assert chisquare([sum(again[m] == name for m in canary) for name in names]).pvalue > 1e-4


def test_a_rule_on_the_member_comes_first_then_the_segment_then_the_trial() -> None:
    rules = Rules(
        weights={"3": 1.0},
        trial=trial(0.5),
        members={"m1": "v4"},
        segments={"country=SE": "r1-canary", NEW: "v5"},
    )
    assert place("m1", rules, model="m", champion="", traits={"country": "SE"}) == (FORCED + "v4", "4")
    assert place("m2", rules, model="m", champion="", traits={"country": "SE"}) == (FORCED + "r1-canary", "7")
    assert cell("m2", rules, new=1.0) == FORCED + "v5"
    assert cell("m2", rules) in ("r1-baseline", "r1-canary")


def test_a_rule_into_a_cell_that_is_gone_does_not_hold() -> None:
    rules = Rules(members={"m1": "r9-canary"})
    assert cell("m1", rules) == "v3"


def test_nothing_live_places_nobody() -> None:
    assert place("m1", Rules(), model="m", champion="") is None


def test_shares_count_everyone() -> None:
    assert Rules(weights={"3": 0.5, "4": 0.5}, trial=trial(0.1)).shares("9") == pytest.approx(
        {"3": 0.5, "4": 0.4, "7": 0.1}
    )
    assert Rules(trial=trial(0.5)).shares("3") == {"3": 0.5, "7": 0.5}
    assert Rules().shares("") == {}


@pytest.mark.parametrize(
    ("segment", "expected"),
    [
        ("country=SE", True),
        ("country=NO", False),
        ("plays_7d<5", True),
        ("plays_7d<4", False),
        ("plays_7d>=4", True),
        ("country>=4", False),
        ("affinity[Drama]<1", True),
        ("age<5", False),
        (NEW, False),
    ],
)
def test_segments(segment: str, expected: bool) -> None:
    check_segment(segment)
    assert holds(segment, {"country": "SE", "plays_7d": 4.0, "affinity[Drama]": 0.5}) is expected


def test_only_some_segments_ask_the_feature_store() -> None:
    assert [asks_features(segment) for segment in ("country=SE", NEW, "plays_7d<5", "plays_7d>=5")] == [
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize("segment", ["", "old", "a=b=c", "plays<x", "=3", "plays<"])
def test_what_is_no_segment_is_refused(segment: str) -> None:
    with pytest.raises(InvalidInput, match="segment"):
        check_segment(segment)
