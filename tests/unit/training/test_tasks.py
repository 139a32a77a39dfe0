from dataclasses import replace
from pathlib import Path

import pytest
from contracts.model_contract import catalogue, training_set

from matinee.models.base import Model, ModelSpec, Query, Scores, TrainingSet
from matinee.models.bundle import save_bundle
from matinee.models.ensemble.config import EnsembleConfig
from matinee.models.ensemble.model import Ensemble
from matinee.models.popularity.config import PopularityConfig
from matinee.models.popularity.model import Popularity
from matinee.training.tasks import Board, FitTask, carried, fit, identity


class Counted(Model):
    def __init__(self, config: object) -> None:
        self.seed = -1

    def fit(self, data, *, seed, progress=None, checkpoints=None, start=None) -> None:
        self.seed = seed
        for step in range(1, 4):
            progress(step, 3, {"loss": 1 / step})

    def score(self, query: Query) -> Scores:
        raise AssertionError("not asked for here")

    def save(self, folder: Path) -> None:
        (folder / "seed").write_text(str(self.seed))
        if self.seed < 0:
            raise OSError("no space left")

    @classmethod
    def load(cls, folder: Path) -> "Counted":
        raise AssertionError("not asked for here")


def task(part: str) -> FitTask:
    spec = ModelSpec(name="counted", model=Counted, presets={"default": None})
    return FitTask(spec=spec, config=None, part=part, seed=3)


TASKS = [task("a"), task("b")]
NO_DATA = TrainingSet(interactions=None, catalogue=None)


def test_each_task_is_claimed_once(tmp_path: Path):
    board, other = Board(tmp_path), Board(tmp_path)
    first, second = board.claim(TASKS, "one"), other.claim(TASKS, "two")
    assert first is not None
    assert second is not None
    assert {first.name, second.name} == {"a.counted", "b.counted"}
    assert Board(tmp_path).claim(TASKS, "three") is None


def test_a_restarted_worker_takes_up_what_it_left(tmp_path: Path):
    board = Board(tmp_path)
    assert board.claim(TASKS, "one") == TASKS[0]
    assert Board(tmp_path).claim(TASKS, "one") == TASKS[0]
    board.keep(TASKS[0], fit(TASKS[0], NO_DATA, board))
    assert board.claim(TASKS, "one") == TASKS[1]


def test_another_run_takes_up_what_one_left(tmp_path: Path):
    board = Board(tmp_path)
    for task in TASKS:
        assert board.claim(TASKS, task.part) == task
    board.keep(TASKS[0], fit(TASKS[0], NO_DATA, board))
    board.release(TASKS)
    assert board.claim(TASKS, "c") == TASKS[1]
    assert board.claim(TASKS, "d") is None


def test_a_fit_counts_when_its_model_is_kept(tmp_path: Path):
    board = Board(tmp_path)
    model = fit(TASKS[0], NO_DATA, board)
    assert 0 < board.completed(TASKS) < 1
    board.keep(TASKS[0], model)
    assert board.completed(TASKS) == 1
    assert (board.models / "a.counted" / "seed").read_text() == "3"
    assert board.curve(TASKS[0])[-1] == {"step": 3, "steps": 3, "loss": 1 / 3}
    assert board.curve(TASKS[1]) == []


def test_a_model_that_cannot_be_saved_leaves_nothing(tmp_path: Path):
    board = Board(tmp_path)
    with pytest.raises(OSError, match="no space"):
        board.keep(TASKS[0], Counted(None))
    assert not board.done(TASKS[0])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_step_reported_again_counts_once(tmp_path: Path):
    board = Board(tmp_path)
    for step, loss in ((1, 5.0), (2, 4.0), (3, 3.0), (2, 2.0)):
        board.report(TASKS[0], step, 9, {"loss": loss})
    assert [(told["step"], told["loss"]) for told in board.curve(TASKS[0])] == [(1, 5.0), (2, 2.0)]


def test_titles_are_carried_by_id():
    assert carried(["a", "b", "c"], ["c", "x", "a"]).tolist() == [2, -1, 0]
    assert carried([], ["a"]).tolist() == [-1]
    assert carried(["a"], []).dtype == "int64"


def test_a_fit_goes_on_from_its_member_of_a_bundle(tmp_path: Path):
    data = training_set()
    members = {"popularity": Popularity(PopularityConfig())}
    ensemble = Ensemble(EnsembleConfig()).with_members(members)
    ensemble.fit(data, seed=0)
    older = catalogue(40)
    save_bundle(tmp_path, ensemble, name="ensemble", catalogue=older, extra={})
    seen = []

    class Watched(Counted):
        def fit(self, data, *, seed, progress=None, checkpoints=None, start=None) -> None:
            seen.append(start)

    for name in ("popularity", "dnn"):
        spec = ModelSpec(name=name, model=Watched, presets={"default": None})
        fit(FitTask(spec=spec, config=None, part="a", seed=0, start=tmp_path), data, None)
    found, absent = seen
    assert absent is None
    assert isinstance(found.model, Popularity)
    assert found.titles.tolist() == [*range(40), *[-1] * 8]


def test_what_a_fit_took_is_kept_by_worker(tmp_path: Path):
    board = Board(tmp_path)
    assert board.usage(TASKS[0]) == []
    board.spent(TASKS[0], 1, {"seconds": 2.0})
    board.spent(TASKS[0], 0, {"seconds": 1.0})
    board.spent(TASKS[1], 0, {"seconds": 9.0})
    assert Board(tmp_path).usage(TASKS[0]) == [{"seconds": 1.0}, {"seconds": 2.0}]


def test_the_same_training_has_one_identity():
    parts = {"a": training_set(), "b": training_set(seed=1)}
    known = identity(TASKS, parts, "code")
    assert identity(TASKS, {"b": training_set(seed=1), "a": training_set()}, "code") == known
    watched = parts["a"].interactions
    later = replace(watched, time=watched.time + 1)
    others = [
        identity(TASKS, parts, "other code"),
        identity(TASKS[:1], parts, "code"),
        identity([replace(TASKS[0], seed=4), TASKS[1]], parts, "code"),
        identity([replace(TASKS[0], config="other"), TASKS[1]], parts, "code"),
        identity([replace(TASKS[0], start=Path("champion")), TASKS[1]], parts, "code"),
        identity(TASKS, parts | {"a": replace(parts["a"], interactions=later)}, "code"),
        identity(TASKS, parts | {"a": replace(parts["a"], member_features=None)}, "code"),
    ]
    others.append(identity(TASKS, parts | {"a": replace(parts["a"], catalogue=catalogue(47))}, "code"))
    assert len({known, *others}) == 9
