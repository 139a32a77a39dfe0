"""Rollouts as rows: one live a surface, decisions in order, none after the end."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from matinee.canary.plan import CONTINUE, ROLL_BACK, canary
from matinee.canary.store import START, STOP, Rollout, Rollouts
from matinee.config import Settings
from matinee.errors import InvalidInput, NotFound
from matinee.schema import Decision


@pytest.fixture
def rollouts(settings: Settings) -> Iterator[Rollouts]:
    found = Rollouts(settings)
    yield found
    found.close()


def add(rollouts: Rollouts, surface: str = "home") -> Rollout:
    return rollouts.add(surface, "rec", baseline="3", candidate="7", plan=canary(), who="ana", why="try 7")


def test_a_rollout_and_its_decisions_come_back(rollouts: Rollouts, settings: Settings) -> None:
    asked = add(rollouts)
    assert (asked.status, asked.state, asked.live) == ("waiting", None, True)
    rollouts.decide(asked, Decision(action=START, reason="go"))
    rollouts.decide(
        rollouts.get(asked.id), Decision(action=CONTINUE, reason="well", evidence={"score": 99.0})
    )
    other = Rollouts(settings)
    found = other.get(asked.id)
    other.close()
    assert found.state is not None
    assert (found.state.step, found.status, found.plan) == (1, "running", canary())
    assert found.trial.salt == f"rollout/{asked.id}"
    assert {cell: (arm.version, arm.share) for cell, arm in found.trial.arms.items()} == {
        f"r{asked.id}-baseline": ("3", 0.05),
        f"r{asked.id}-canary": ("7", 0.05),
    }
    assert [(each.action, each.step, each.who) for each in found.decisions] == [
        (START, 0, "controller"),
        (CONTINUE, 0, "controller"),
    ]
    assert found.decisions[1].evidence == {"score": 99.0}


def test_one_is_live_on_a_surface_even_if_many_ask_at_once(rollouts: Rollouts) -> None:
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(add, rollouts) for _ in range(8)]
    refused = [str(each.exception()) for each in asked if each.exception()]
    assert len(refused) == 7
    assert all("surface home has a live rollout" in text for text in refused)
    add(rollouts, "shelf")
    (first, second) = rollouts.live()
    rollouts.finish(first)
    assert [each.id for each in rollouts.live()] == [second.id]
    assert add(rollouts).live


def test_nothing_is_decided_after_the_end(rollouts: Rollouts) -> None:
    asked = add(rollouts)
    stopped = rollouts.decide(asked, Decision(action=STOP, reason="enough"), who="bo")
    after = rollouts.decide(asked, Decision(action=ROLL_BACK, reason="late"))
    assert [each.action for each in after.decisions] == [STOP]
    assert stopped.end is not None
    assert (after.status, stopped.end.who) == (STOP, "bo")


def test_figures_are_kept_until_the_end(rollouts: Rollouts) -> None:
    asked = add(rollouts)
    assert rollouts.kept(asked) is None
    rollouts.keep(asked, {"tally": [1, 2]})
    assert rollouts.kept(asked) == {"tally": [1, 2]}
    rollouts.finish(asked)
    assert rollouts.kept(asked) is None


def test_one_that_is_not_there_is_named(rollouts: Rollouts) -> None:
    with pytest.raises(NotFound, match="rollout 7 does not exist"):
        rollouts.get(7)
    with pytest.raises(InvalidInput, match="why of a rollout is empty"):
        rollouts.add("home", "rec", baseline="3", candidate="7", plan=canary(), who="ana", why=" ")
