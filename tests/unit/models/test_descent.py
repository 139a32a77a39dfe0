from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from matinee.models.descent import STATE, Plan, descend, half, rate

CPU = torch.device("cpu")
PLAN = Plan(steps=12, learning_rate=0.05, warmup=0.25, weight_decay=0.01, clip=1.0, report_every=4)


class Folders:
    """Checkpoints in folders, all of them kept; `begun` is the step a fit finds first."""

    def __init__(self, root: Path, every: int, begun: int | None = None) -> None:
        self._root, self.every, self._begun = root, every, begun

    def latest(self) -> Path | None:
        return None if self._begun is None else self._root / str(self._begun)

    def keep(self, step: int, write: Callable[[Path], None]) -> None:
        folder = self._root / str(step)
        folder.mkdir()
        write(folder)


class Line:
    """A network with dropout that learns a line from points the step draws; it counts its steps."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.3), nn.Linear(4, 1))
        self.steps: list[int] = []
        self.reports: dict[int, Mapping[str, float]] = {}

    def loss(self, step: int, generator: torch.Generator) -> torch.Tensor:
        self.steps.append(step)
        points = torch.rand(16, 3, generator=generator)
        return (self.network(points)[:, 0] - points.sum(1)).square().mean()

    def descend(self, plan: Plan = PLAN, seed: int = 7, **options) -> Line:
        def progress(step: int, steps: int, figures: Mapping[str, float]) -> None:
            assert steps == plan.steps
            self.reports[step] = dict(figures)

        descend(self.network, self.loss, plan, seed=seed, device=CPU, progress=progress, **options)
        return self

    def weights(self) -> dict[str, torch.Tensor]:
        return dict(self.network.state_dict())


def assert_equal(one: Line, other: Line) -> None:
    for name, value in one.weights().items():
        assert torch.equal(value, other.weights()[name]), name


def test_a_fit_taken_up_at_any_checkpoint_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = Line().descend(checkpoints=Folders(tmp_path, every=1))
    assert sorted(int(folder.name) for folder in tmp_path.iterdir()) == list(range(1, PLAN.steps))
    for begun in range(1, PLAN.steps):
        torch.manual_seed(begun)  # the caller's generator makes no difference
        late = Line().descend(checkpoints=Folders(tmp_path, every=100, begun=begun))
        assert late.steps == list(range(begun, PLAN.steps))
        assert_equal(late, whole)
        assert late.reports == {step: told for step, told in whole.reports.items() if step > begun}


def test_checkpoints_change_nothing(tmp_path: Path) -> None:
    assert_equal(Line().descend(), Line().descend(checkpoints=Folders(tmp_path, every=5)))


def test_seeds_differ_and_a_seed_repeats() -> None:
    assert_equal(Line().descend(seed=1), Line().descend(seed=1))
    first, other = Line().descend(seed=1), Line().descend(seed=2)
    assert not torch.equal(first.network[0].weight, other.network[0].weight)


def test_the_callers_random_numbers_stay() -> None:
    line = Line()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    line.descend()
    assert torch.equal(torch.rand(2), expected)


def test_the_state_is_whole(tmp_path: Path) -> None:
    figures = iter([0.1, 0.3, 0.2])
    line = Line().descend(
        checkpoints=Folders(tmp_path, every=10),
        validate=lambda: next(figures),
        plan=replace(PLAN, patience=5),
    )
    state = torch.load(tmp_path / "10" / STATE, weights_only=True)
    assert state["step"] == 10
    assert state["network"].keys() == line.weights().keys()
    assert {entry["step"].item() for entry in state["optimizer"]["state"].values()} == {10.0}
    course = state["course"]
    assert (course["best"], course["since"], course["counted"]) == (0.3, 0, 2)
    assert course["loss"] > 0
    assert course["weights"].keys() == line.weights().keys()


def test_the_rate_climbs_then_falls_to_zero() -> None:
    plan = replace(PLAN, steps=100, warmup=0.1)
    rates = [rate(plan, step) for step in range(100)]
    assert rates[:10] == pytest.approx([plan.learning_rate * (step + 1) / 10 for step in range(10)])
    assert rates[10] == plan.learning_rate
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(plan.learning_rate / 2)
    assert 0 < rates[99] < 1e-3 * plan.learning_rate
    assert rate(replace(plan, warmup=0.0), 0) == plan.learning_rate


def test_the_optimiser_follows_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW) -> None:
        met.append(self.param_groups[0]["lr"])
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    Line().descend()
    assert met == [rate(PLAN, step) for step in range(PLAN.steps)]


@pytest.mark.parametrize(("clip", "greatest"), [(None, math.inf), (0.01, 0.01)])
def test_gradients_are_clipped(clip: float | None, greatest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW) -> None:
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        norms.append(torch.cat(gradients).norm().item())
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    Line().descend(replace(PLAN, clip=clip))
    assert max(norms) <= greatest * 1.001
    assert max(norms) > 0.009


def test_patience_ends_the_fit_and_restores_the_best_look() -> None:
    figures = [0.1, 0.5, 0.4, 0.5, 0.3, 0.9]
    looks: list[dict[str, torch.Tensor]] = []
    line = Line()

    def validate() -> float:
        assert not line.network.training
        looks.append({name: value.clone() for name, value in line.weights().items()})
        return figures[len(looks) - 1]

    line.descend(replace(PLAN, report_every=2, patience=3), validate=validate)
    assert len(looks) == 5
    assert line.steps == list(range(10))
    assert line.reports[PLAN.steps]["validation"] == 0.3  # an ended fit reports that it is at its end
    for name, value in line.weights().items():
        assert torch.equal(value, looks[1][name])
    assert not line.network.training


def test_patience_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    plan = replace(PLAN, report_every=1, patience=4)
    figures = [0.2, 0.8, 0.7, 0.6, 0.5, 0.4, 0.9]
    whole = Line()
    whole.descend(plan, checkpoints=Folders(tmp_path, every=1), validate=lambda: figures[whole.steps[-1]])
    assert whole.steps == list(range(6))
    late = Line()
    late.descend(
        plan, checkpoints=Folders(tmp_path, every=99, begun=4), validate=lambda: figures[late.steps[-1]]
    )
    assert late.steps == [4, 5]
    assert_equal(late, whole)


def test_without_patience_the_last_network_stays() -> None:
    assert_equal(Line().descend(validate=lambda: 0.0), Line().descend())


def test_no_steps_are_a_fit_too() -> None:
    line = Line().descend(replace(PLAN, steps=0))
    assert_equal(line, Line())
    assert not line.network.training


def test_bfloat16_where_it_is_asked_for_or_the_device_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    assert not half("auto", CPU)
    assert half("bf16", CPU)
    for able in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, able=able: able)
        assert half("auto", gpu) is able
        assert not half("float32", gpu)


def test_bfloat16_learns_in_float32_parameters() -> None:
    exact, rounded = Line().descend(), Line().descend(replace(PLAN, precision="bf16"))
    assert rounded.network[0].weight.dtype == torch.float32
    assert not torch.equal(exact.network[0].weight, rounded.network[0].weight)
    torch.testing.assert_close(exact.network[0].weight, rounded.network[0].weight, atol=0.05, rtol=0)
