"""Splits are rows: newest wins, all of them stay."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import pytest

from matinee.config import Settings
from matinee.errors import InvalidInput, MatineeError
from matinee.serving.place import Arm, Rules, Shadow, Trial
from matinee.serving.splits import Splits, shares


def test_the_newest_row_is_current_and_the_old_ones_stay(settings: Settings) -> None:
    splits = Splits(settings)
    splits.set("home", {"1": 1.0}, who="ana", why="first")
    splits.set("home", {"1": 9, "2": 1}, who="bo", why="try 2")
    assert splits.current("home") == {"1": 0.9, "2": 0.1}
    assert splits.current("search") == {}
    assert [(row.who, row.why) for row in splits.history("home")] == [("bo", "try 2"), ("ana", "first")]
    assert splits.history("home")[0].time >= splits.history("home")[1].time
    splits.close()


def test_another_process_sees_the_same(settings: Settings) -> None:
    writer, reader = Splits(settings), Splits(settings)
    writer.set("home", {"2": 1}, who="ana", why="go")
    assert reader.rules() == {"home": Rules(weights={"2": 1.0})}
    writer.close()
    reader.close()


def test_an_empty_split_goes_back_to_the_champion(settings: Settings) -> None:
    splits = Splits(settings)
    splits.set("home", {"2": 1}, who="ana", why="go")
    splits.set("home", {}, who="ana", why="back")
    assert splits.current("home") == {}
    assert splits.rules() == {}
    assert len(splits.history("home")) == 2
    splits.close()


def test_many_writers_lose_nothing(settings: Settings) -> None:
    splits = Splits(settings)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: splits.set("home", {str(i): 1}, who="w", why="w"), range(20)))
    assert len(splits.history("home")) == 20
    splits.close()


@pytest.mark.parametrize("weights", [{"1": -1.0}, {"1": math.nan}, {"1": 0.0, "2": 0.0}, {"1": math.inf}])
def test_weights_that_cannot_be_shares_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="weight"):
        shares(weights)


@pytest.mark.parametrize("given", [{"who": " "}, {"why": ""}, {"surface": ""}])
def test_a_change_says_who_and_why(settings: Settings, given: dict[str, str]) -> None:
    splits = Splits(settings)
    named = {"surface": "home", "who": "ana", "why": "go"} | given
    with pytest.raises(InvalidInput, match=next(iter(given))):
        splits.set(named["surface"], {"1": 1}, who=named["who"], why=named["why"])
    assert splits.history("home") == []
    splits.close()


def test_a_home_that_cannot_be_written_is_named(settings: Settings) -> None:
    settings.home.parent.joinpath("home").write_text("a file")
    with pytest.raises(MatineeError, match=str(settings.home)):
        Splits(settings)


def test_rules_stand_beside_the_split_until_they_are_withdrawn(settings: Settings) -> None:
    splits = Splits(settings)
    trial = Trial(salt="r1", arms={"r1-canary": Arm(version="7", share=0.1)})
    shadow = Shadow(version="8", share=0.2)
    signed = {"who": "ana", "why": "try 7"}
    splits.set("home", {"3": 1}, **signed)
    splits.set_trial("home", trial, **signed)
    splits.set_member("home", "m1", "v7", **signed)
    splits.set_segment("home", "country=SE", "r1-canary", **signed)
    splits.set_shadow("shelf", shadow, **signed)
    home = Rules(weights={"3": 1.0}, trial=trial, members={"m1": "v7"}, segments={"country=SE": "r1-canary"})
    assert splits.rules() == {"home": home, "shelf": Rules(shadow=shadow)}
    splits.set_trial("home", None, **signed)
    splits.set_member("home", "m1", None, **signed)
    splits.set_segment("home", "country=SE", None, **signed)
    splits.set_shadow("shelf", None, **signed)
    assert splits.rules() == {"home": Rules(weights={"3": 1.0})}
    told = [(row["kind"], row["name"], row["who"], row["why"]) for row in splits.rule_history("home")]
    assert told[-1] == ("trial", "", "ana", "try 7")
    assert len(told) == 6
    splits.close()


def test_rules_that_cannot_be_are_refused(settings: Settings) -> None:
    splits = Splits(settings)
    signed = {"who": "ana", "why": "try"}
    half = Arm(version="7", share=0.6)
    with pytest.raises(InvalidInput, match="together at most 1"):
        splits.set_trial("home", Trial(salt="r1", arms={"a": half, "b": half}), **signed)
    with pytest.raises(InvalidInput, match="share of shadow 7"):
        splits.set_shadow("home", Shadow(version="7", share=0.0), **signed)
    with pytest.raises(InvalidInput, match="segment 'plays<many'"):
        splits.set_segment("home", "plays<many", "v7", **signed)
    with pytest.raises(InvalidInput, match="member of a rule"):
        splits.set_member("home", " ", "v7", **signed)
    assert splits.rules() == {}
    splits.close()
