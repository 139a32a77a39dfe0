"""The training loop of the torch models: rate schedule, clipping, precision, early stop, checkpoints.

What a step draws depends on the seed and the step's number alone, so that a fit that goes on from a
checkpoint ends as the one that was never interrupted. Under torch.distributed every worker runs the same
steps on its part of each batch; gradients are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from matinee.models.base import Checkpoints, Progress
from matinee.models.gradients import average_gradients, together, workers

STATE = "state.pt"

Loss = Callable[[int, torch.Generator], torch.Tensor]
"""Of (step, generator): this worker's loss at a step, drawing what is random from the generator alone
or from torch's default one; both are seeded for the step."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How the parameters are moved.

    Args:
        steps: optimiser steps.
        learning_rate: AdamW's peak step.
        warmup: share of the steps in which the rate climbs to its peak; then it falls to zero on a cosine.
        weight_decay: AdamW's decay.
        clip: greatest norm of the gradient; None: unbounded.
        precision: of the loss's forward pass; "auto": bfloat16 on a GPU that computes in it, else float32.
        report_every: steps between reports of progress, and between looks at the validation figure.
        patience: looks without a better validation figure after which training stops.
    """

    steps: int
    learning_rate: float
    warmup: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = None
    precision: Literal["auto", "float32", "bf16"] = "float32"
    report_every: int = 10
    patience: int | None = None


def rate(plan: Plan, step: int) -> float:
    """The learning rate of a step, counted from 0."""
    warm = int(plan.steps * plan.warmup)
    if step < warm:
        return plan.learning_rate * (step + 1) / warm
    return plan.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(plan.steps - warm, 1)))


def half(precision: str, device: torch.device) -> bool:
    """Whether a forward pass of this precision runs in bfloat16 on `device`."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bf16" or (precision == "auto" and able)


def descend(
    network: nn.Module,
    loss: Loss,
    plan: Plan,
    *,
    seed: int,
    device: torch.device,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
    validate: Callable[[], float] | None = None,
    publish: Callable[[], None] = lambda: None,
) -> None:
    """Train `network` in place, in training mode; going on from the latest checkpoint if there is one.

    Args:
        network: everything that learns, on `device`.
        validate: a figure of the network as it is, higher is better, alike on every worker. With
            `plan.patience`, training stops when it no longer rises, and the best network is kept.
        publish: called in evaluation mode before every report of progress and at the end: hands the
            network as it is to whoever scores with it.
    """
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True
    )
    course = _Course(loss=torch.zeros((), dtype=torch.float64, device=device))
    first = 0
    if checkpoints is not None and (folder := checkpoints.latest()) is not None:
        first = _restore(folder, network, optimizer, course, device)
    network.train()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=half(plan.precision, device))
    generator = torch.Generator()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for step in range(first, plan.steps):
            torch.manual_seed(_step_seed(seed, step))
            generator.manual_seed(_step_seed(seed, step) + 1)
            for group in optimizer.param_groups:
                group["lr"] = rate(plan, step)
            with autocast:
                found = loss(step, generator)
            optimizer.zero_grad(set_to_none=True)
            found.backward()  # type: ignore[no-untyped-call]
            average_gradients(network.parameters())
            if plan.clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), plan.clip)
            optimizer.step()
            course.loss += found.detach()
            course.counted += 1
            done = step + 1
            if done % plan.report_every == 0 or done == plan.steps:
                figures = {"loss": course.loss.item() / course.counted}
                course.loss.zero_()
                course.counted = 0
                if validate is not None:
                    figures["validation"] = _look(network, validate, course)
                stop = plan.patience is not None and course.since >= plan.patience
                if progress is not None:
                    network.eval()
                    publish()
                    progress(plan.steps if stop else done, plan.steps, figures)
                    network.train()
                if stop:
                    break
            if checkpoints is not None and done % checkpoints.every == 0 and done < plan.steps:
                checkpoints.keep(done, lambda folder, at=done: _write(folder, at, network, optimizer, course))  # type: ignore[misc]
    if course.weights is not None and plan.patience is not None:
        network.load_state_dict(course.weights)
    network.eval()
    publish()


@dataclass(kw_only=True)
class _Course:
    """What is known of the way so far besides the parameters: loss summed since the last report, over
    how many steps; validation's best figure, looks since then, and the weights of that look."""

    loss: torch.Tensor
    counted: int = 0
    best: float = -math.inf
    since: int = 0
    weights: dict[str, torch.Tensor] | None = None


def _look(network: nn.Module, validate: Callable[[], float], course: _Course) -> float:
    network.eval()
    with torch.no_grad():
        figure = float(together(validate())) / workers()
    network.train()
    if figure > course.best:
        course.best, course.since = figure, 0
        course.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
    else:
        course.since += 1
    return figure


def _step_seed(seed: int, step: int) -> int:
    return (seed * 1_000_003 + step * 2 + 17) % (1 << 62)


def _write(
    folder: Path, step: int, network: nn.Module, optimizer: torch.optim.Optimizer, course: _Course
) -> None:
    state: dict[str, Any] = {
        "step": step,
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "course": vars(course),
    }
    torch.save(state, folder / STATE)


def _restore(
    folder: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    course: _Course,
    device: torch.device,
) -> int:
    state = torch.load(folder / STATE, map_location=device, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    vars(course).update(state["course"])
    return int(state["step"])
