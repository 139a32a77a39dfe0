"""Rollouts in the simulated service, end to end: the controller decides by what members do."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import rollout_world

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def test_the_better_one_is_promoted_and_the_worse_ones_are_rolled_back(tmp_path: Path) -> None:
    lines, books, champion = rollout_world.run(tmp_path)
    decided = {line.candidate: line.action for line in lines}
    assert decided == {"better": "promote", "shuffled": "roll_back", "slow": "roll_back"}, lines
    assert champion == rollout_world.BETTER
    reasons = {line.candidate: line.reason for line in lines}
    assert "latency" in reasons["slow"]
    for line in lines:
        assert line.effect_s < 2, line
        assert line.broken == 0, line
        assert line.ratio == "keep", line
        assert min(line.members) > 10, line
    assert books["answers"] > 2_000
    assert books == {
        "answers": books["answers"],
        "exposures": books["answers"],
        "not_one_exposure": 0,
        "not_implied_by_the_split": 0,
    }
