from pathlib import Path

import pytest

from matinee.models.base import Model, ModelSpec, Query, Scores, TrainingSet
from matinee.training.tasks import Board, FitTask, fit


class Counted(Model):
    def __init__(self, config: object) -> None:
        self.seed = -1

    def fit(self, data, *, seed, progress=None) -> None:
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
