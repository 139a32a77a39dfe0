"""Workers and drivers that die while models train, on a real Ray cluster."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import torch
from contracts.model_contract import training_set

from matinee.config import Settings, Training
from matinee.models.base import Checkpoints, Model, ModelSpec, Progress, Query, Scores, Start, TrainingSet
from matinee.models.descent import Plan, descend
from matinee.models.gradients import together
from matinee.training import loop
from matinee.training.tasks import FitTask

STEPS, EVERY, HANGS, DEADLY = 40, 5, 12, 28
VICTIM = "a"


class Counted(Model):
    """Learns how often titles are watched, by descent, and notes its steps. The fit VICTIM hangs at step
    HANGS until it is armed, and then loses its last worker at step DEADLY, once."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.given = given
        self.weights = torch.nn.Linear(1, 48, bias=False)

    def fit(
        self,
        data: TrainingSet,
        *,
        seed: int,
        progress: Progress | None = None,
        checkpoints: Checkpoints | None = None,
        start: Start | None = None,
    ) -> None:
        distributed = torch.distributed
        rank, folder = distributed.get_rank(), Path(self.given["notes"])
        counts = np.bincount(data.interactions.title, minlength=48)
        shares = torch.from_numpy(together(counts) / together(len(data.interactions))).float()

        def note(**told: object) -> None:
            with (folder / "notes.jsonl").open("a") as file:
                file.write(json.dumps({"rank": rank, "fit": self.given["fit"], **told}) + "\n")

        note(rows=len(data.interactions), sharded=data.sharded)

        def loss(step: int, generator: torch.Generator) -> torch.Tensor:
            note(step=step)
            armed = folder / "armed"
            if self.given["fit"] == VICTIM and step == HANGS and not armed.exists():
                (folder / "hangs").touch()
                time.sleep(600)
            last = rank == distributed.get_world_size() - 1
            if self.given["fit"] == VICTIM and step == DEADLY and last and armed.read_text() == "":
                armed.write_text("fired")
                os.kill(os.getpid(), signal.SIGKILL)
            drawn = torch.rand(48, generator=generator) + rank
            return ((self.weights(torch.ones(1)) - shares).square() * drawn).mean()

        plan = Plan(steps=STEPS, learning_rate=0.05, report_every=1)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.weights.reset_parameters()
        descend(
            self.weights, loss, plan, seed=seed, device=torch.device("cpu"),
            progress=progress, checkpoints=checkpoints,
        )  # fmt: skip

    def score(self, query: Query) -> Scores:
        raise AssertionError("not asked for here")

    def save(self, folder: Path) -> None:
        np.save(folder / "weights.npy", self.weights.weight.detach().numpy())

    @classmethod
    def load(cls, folder: Path) -> Self:
        model = cls({})
        model.weights.weight.data = torch.from_numpy(np.load(folder / "weights.npy"))
        return model


def notes(folder: Path, fit: str, rank: int) -> list[dict[str, int]]:
    told = [json.loads(line) for line in (folder / "notes.jsonl").read_text().splitlines()]
    return [each for each in told if (each["fit"], each["rank"]) == (fit, rank)]


def steps(folder: Path, fit: str, rank: int) -> list[int]:
    return [each["step"] for each in notes(folder, fit, rank) if "step" in each]


def test_a_dead_driver_and_a_dead_worker_cost_less_than_a_checkpoint_interval(
    tmp_path: Path, ray_cluster: str
) -> None:
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    training = Training(workers=2, checkpoint_steps=EVERY, max_failures=1)
    settings = Settings(home=tmp_path, ray_address=ray_cluster, training=training)
    data, run = training_set(), tmp_path / "run"
    tasks = [
        FitTask(
            spec=ModelSpec(name="counted", model=Counted, presets={}, distributed=True, shardable=True),
            config={"notes": str(tmp_path), "fit": fit},
            part=fit,
            seed=4,
        )
        for fit in (VICTIM, "b")
    ]

    def interrupt(completed: float, total: float, note: str | None) -> None:
        if (tmp_path / "hangs").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.fit_all(settings, tasks, {"a": data, "b": data}, folder=run, progress=interrupt)
    (tmp_path / "armed").touch()
    fitted = loop.fit_all(settings, tasks, {"a": data, "b": data}, folder=run)
    for rank in (0, 1):
        interrupted, killed = range(HANGS + 1), range(10, DEADLY + 1)
        assert steps(tmp_path, VICTIM, rank) == [*interrupted, *killed, *range(25, STEPS)]
        assert steps(tmp_path, "b", rank) == list(range(STEPS))

    victim, quiet = (fitted.models[f"{fit}.counted"] for fit in (VICTIM, "b"))
    assert torch.equal(victim.weights.weight, quiet.weights.weight)
    reached = [told["step"] for told in fitted.curves["a.counted"]]
    assert reached == sorted(set(reached))
    held = [notes(tmp_path, "b", rank)[0] for rank in (0, 1)]
    assert all(each["sharded"] for each in held)
    assert sum(each["rows"] for each in held) == len(data.interactions)
    assert max(each["rows"] for each in held) < 0.6 * len(data.interactions)
    assert list((run / "checkpoints" / "run").iterdir()) == []
