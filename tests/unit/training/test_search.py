from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

from matinee.errors import InvalidInput, MatineeError, Unavailable
from matinee.models import discover
from matinee.models.base import ModelSpec
from matinee.models.popularity.config import PopularityConfig
from matinee.models.space import Choice, Real, Whole
from matinee.training.budget import Budget
from matinee.training.rehearsal import METRIC, RUNGS
from matinee.training.search import check, distribution, report, scheduler, searcher
from matinee.training.study import Study

SPACE = {"x": Real(0.0, 1.0), "n": Whole(1, 9, log=True), "kind": Choice((None, "a"))}
SPEC = ModelSpec(name="toy", model=None, presets={}, space=SPACE)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path, "id")


def point(x: float) -> dict[str, object]:
    return {"x": x, "n": 3, "kind": None}


def tried(study: Study, name: str, x: float, values: list[float], end: str) -> None:
    study.begin(name, point(x))
    for percent, value in zip([*RUNGS, 100.0], values, strict=False):
        study.report(name, percent, value)
    study.end(name, end)


@pytest.mark.parametrize("dimension", SPACE.values())
def test_a_dimension_is_optunas_from_end_to_end(dimension):
    made = distribution(dimension)
    for place in (0.0, 0.3, 1.0):
        value = dimension.at(place)
        assert made.to_external_repr(made.to_internal_repr(value)) == value
        assert made._contains(made.to_internal_repr(value))


def test_names_are_checked_in_a_line():
    check("cf", "my-study_2.0")
    with pytest.raises(InvalidInput, match="model 'cg' is unknown; there are cf, dnn"):
        check("cg", None)
    for name in ("", "../x", "a/b", ".hidden", "x" * 200):
        with pytest.raises(InvalidInput, match="is not accepted: use letters"):
            check("cf", name)


def test_a_rung_reached_before_the_interruption_still_stops_the_worse_half(study: Study):
    for number in range(3):
        tried(study, f"t{number}", 0.5, [0.5, 0.6, 0.7, 0.8], "finished")
    halving, fresh = scheduler(study), scheduler(Study(study._path.parent / "new", "id"))
    for each, wanted in ((halving, "STOP"), (fresh, "CONTINUE")):
        newcomer = SimpleNamespace(trial_id="new")
        each.on_trial_add(None, newcomer)
        assert each.on_trial_result(None, newcomer, {"percent": RUNGS[0], METRIC: 0.4}) == wanted
    better = SimpleNamespace(trial_id="better")
    halving.on_trial_add(None, better)
    assert halving.on_trial_result(None, better, {"percent": RUNGS[0], METRIC: 0.55}) == "CONTINUE"


def test_given_points_come_first_and_then_the_searchers_own(study: Study):
    found = searcher(study, SPEC, [point(0.25), point(0.75)], 0)
    assert [found.suggest(name) for name in "ab"] == [point(0.25), point(0.75)]
    own = found.suggest("c")
    assert own.keys() == SPACE.keys()
    assert 0 <= own["x"] <= 1


def test_the_searcher_looks_where_earlier_sessions_found_most(study: Study):
    for number in range(40):
        x = number / 40
        tried(study, f"t{number}", x, [1 - abs(x - 0.8)], "stopped")
    found = searcher(study, SPEC, [], 0)
    drawn = [found.suggest(f"n{number}")["x"] for number in range(10)]
    assert sum(abs(x - 0.8) < 0.2 for x in drawn) >= 8


def test_a_new_session_does_not_draw_the_same_points_again(study: Study):
    first = searcher(study, SPEC, [], 0).suggest("a")
    assert searcher(study, SPEC, [], 0).suggest("a") == first
    tried(study, "a", 0.1, [0.2], "stopped")
    assert searcher(study, SPEC, [], 0).suggest("b") != first


def test_a_lost_or_failed_trial_teaches_the_searcher_nothing(study: Study):
    tried(study, "a", 0.1, [0.9], "lost")
    tried(study, "b", 0.2, [0.9], "failed")
    told = searcher(study, SPEC, [], 0)._ot_study
    assert [trial for trial in told.trials if trial.state == optuna.trial.TrialState.COMPLETE] == []


POPULARITY = discover()["popularity"]


def test_a_report_tells_the_base_from_the_best(study: Study):
    for name, days, value in (("a", None, 0.2), ("b", 30.0, 0.3), ("c", 7.0, 0.1)):
        study.begin(name, {"half_life_days": days})
        study.report(name, 100.0, value)
        study.end(name, "finished")
    study.begin("d", {"half_life_days": 1.0})
    study.end("d", "lost")
    found = report(POPULARITY, PopularityConfig(), study, Budget(trials=3), "run")
    assert found.best == {"half_life_days": 30.0}
    assert (found.value, found.base_value) == (0.3, 0.2)
    assert found.config == {"half_life_days": 30.0, "trend_half_life_days": 7.0}
    assert [row["trial"] for row in found.trials] == ["b", "a", "c"]


def test_nothing_finished_is_an_error_that_says_why(study: Study):
    study.begin("a", {"half_life_days": None})
    with pytest.raises(Unavailable, match="budget ended before one trial did"):
        report(POPULARITY, PopularityConfig(), study, Budget(seconds=1), "run")
    study.end("a", "failed", "ValueError: no days")
    with pytest.raises(MatineeError, match="every trial failed, the first with ValueError: no days"):
        report(POPULARITY, PopularityConfig(), study, Budget(seconds=1), "run")
