"""What a training step computes: a loss at positions of histories; and the figure that may end training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from matinee.models.dnn.batches import Batches
from matinee.models.dnn.config import DnnConfig
from matinee.models.dnn.exposures import Exposures
from matinee.models.dnn.losses import binary, calibrated_exponent, sampled_softmax
from matinee.models.dnn.network import MemberTower, Towers
from matinee.models.gradients import next_titles_loss
from matinee.models.positions import Positions

FULL_SOFTMAX = 50_000
"""Most titles over which the softmax runs whole where the config leaves it open."""
DRAWN = 4_096
"""Titles it runs over beyond that."""
JUDGED = 2_000
"""Most members whose last watch is held out to tell when training stops."""
CUT = 10
"""Places that count there."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The loss of a step.

    Args:
        context: float32 [places, 1 + features], see `MemberTower`.
        exposures: what the heads learn from.
    """

    towers: Towers
    places: Positions
    context: torch.Tensor
    batches: Batches
    config: DnnConfig
    exposures: Exposures | None

    def loss(self, step: int, generator: torch.Generator) -> torch.Tensor:
        """Over sampled positions of a batch's runs; under torch.distributed of this worker's runs."""
        config, places, towers = self.config, self.places, self.towers
        device = towers.bias.device
        runs = self.batches.at(step)
        slots = runs[:, :1] + np.arange(config.length)[None, :]
        held = slots < runs[:, 1:]
        # State i of a run is the member before the title at slot i; the state after the last is left out.
        rows, columns = np.nonzero(held)
        chosen = torch.rand(len(rows), generator=generator).numpy() < config.sampled
        chosen[0] = True
        rows, columns = rows[chosen], columns[chosen]
        at = slots[rows, columns]
        targets, weights = places.coming(at, config.targets, config.target_decay)
        shown = _Shown.draw(
            towers,
            history=torch.from_numpy(np.where(held, places.title[np.minimum(slots, len(places) - 1)], 0)),
            targets=torch.from_numpy(targets),
            config=config,
            generator=generator,
        )
        states = towers.member.encode(shown.histories(), torch.from_numpy(held).to(device))
        told = self.context[torch.from_numpy(at).to(device)]
        silent = torch.rand(len(at), generator=generator) < config.feature_dropout
        told = torch.cat([told[:, :1], told[:, 1:] * (~silent)[:, None].to(device)], dim=1)
        places_of_states = torch.from_numpy(rows * (config.length + 1) + columns).to(device)
        members = towers.member(states.flatten(0, 1).index_select(0, places_of_states), told)
        loss = shown.loss(members, torch.from_numpy(weights).to(device), config)
        if self.exposures is not None:
            vectors = shown.vectors if shown.drawn is None else None
            loss = loss + self.exposures.loss(towers, states, vectors, runs, config, generator)
        return loss


@dataclass(frozen=True, kw_only=True)
class _Shown:
    """The titles of a step: their vectors, and where the others find themselves among them.

    Args:
        vectors: float32 [n, width], of all titles or of those that the step needs.
        bias: float32 [n].
        history: int64 [runs, length], positions in `vectors`; `targets` [positions, w] likewise.
        drawn: int64 [k] for all positions, or [positions, k]; None: every title.
        titles: of the catalogue.
    """

    vectors: torch.Tensor
    bias: torch.Tensor
    history: torch.Tensor
    targets: torch.Tensor
    drawn: torch.Tensor | None
    titles: int

    @classmethod
    def draw(
        cls,
        towers: Towers,
        *,
        history: torch.Tensor,
        targets: torch.Tensor,
        config: DnnConfig,
        generator: torch.Generator,
    ) -> _Shown:
        titles, device = len(towers.bias), towers.bias.device
        kept = None
        if config.identity_dropout and towers.title.content is not None:
            kept = (torch.rand(titles, generator=generator) >= config.identity_dropout).to(device)
        count = drawn_titles(config, titles)
        history, targets = history.to(device), targets.to(device)
        if count is None:
            return cls(
                vectors=towers.title(kept=kept),
                bias=towers.biases(),
                history=history,
                targets=targets,
                drawn=None,
                titles=titles,
            )
        shape = (count,) if config.loss == "softmax" else (len(targets), count)
        parts = [history, targets, torch.randint(titles, shape, generator=generator).to(device)]
        used, place = torch.unique(torch.cat([part.flatten() for part in parts]), return_inverse=True)
        found = place.split([part.numel() for part in parts])
        history, targets, drawn = (at.view_as(part) for at, part in zip(found, parts, strict=True))
        return cls(
            vectors=towers.title(used, kept),
            bias=towers.biases().index_select(0, used),
            history=history,
            targets=targets,
            drawn=drawn,
            titles=titles,
        )

    def histories(self) -> torch.Tensor:
        # embedding and index_select: their gradients cost a fraction of plain indexing's.
        return functional.embedding(self.history, self.vectors)

    def loss(self, members: torch.Tensor, weights: torch.Tensor, config: DnnConfig) -> torch.Tensor:
        if self.drawn is None:
            return next_titles_loss(members, self.vectors, self.bias, self.targets, weights)
        wanted = self._logits(members, self.targets)
        if config.loss == "softmax":
            against = functional.embedding(self.drawn, self.vectors)
            drawn = torch.addmm(self.bias.index_select(0, self.drawn), members, against.T)
            return sampled_softmax(wanted, drawn, weights, self.titles)
        exponent = 1.0
        if config.loss == "gbce":
            exponent = calibrated_exponent(self.drawn.shape[1], self.titles, config.calibration)
        return binary(wanted, self._logits(members, self.drawn), weights, exponent)

    def _logits(self, members: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Of titles [positions, n] given position by position."""
        vectors = functional.embedding(at, self.vectors).to(members.dtype)
        bias = functional.embedding(at, self.bias[:, None]).squeeze(2)
        return torch.bmm(vectors, members[:, :, None]).squeeze(2) + bias


def drawn_titles(config: DnnConfig, titles: int) -> int | None:
    """How many titles stand for all in the loss; None: every title does."""
    if config.loss != "softmax":
        return config.negatives or 1
    return config.negatives or (None if titles <= FULL_SOFTMAX else DRAWN)


def last_states(
    member: MemberTower, titles: torch.Tensor, histories: Sequence[npt.NDArray[np.int32]], length: int
) -> torch.Tensor:
    """States after the last title of each history, [m, width].

    Args:
        titles: float32 [titles, width], all title vectors.
    """
    counts = np.array([min(len(history), length) for history in histories], dtype=np.int64)
    # Left-aligned, as in training: the state after the last title stands at the history's length.
    block = np.zeros((len(histories), max(int(counts.max(initial=0)), 1)), dtype=np.int64)
    for row, history in enumerate(histories):
        if counts[row]:
            block[row, : counts[row]] = history[-counts[row] :]
    device = titles.device
    known = torch.from_numpy(np.arange(block.shape[1])[None, :] < counts[:, None]).to(device)
    states = member.encode(titles[torch.from_numpy(block).to(device)], known)
    return states[torch.arange(len(histories), device=device), torch.from_numpy(counts).to(device)]


def held_out(places: Positions, seed: int) -> npt.NDArray[np.bool_]:
    """Marks the last places of some members with three or more: at most `JUDGED` members."""
    last = np.flatnonzero((np.arange(len(places)) == places.stop - 1) & (places.stop - places.start >= 3))
    marked = np.zeros(len(places), dtype=bool)
    marked[np.random.default_rng(seed).permutation(last)[:JUDGED]] = True
    return marked


@dataclass(frozen=True, kw_only=True)
class Judge:
    """NDCG@10 of held-out watches among the titles not watched before.

    Args:
        histories: per held-out watch, what its member watched before.
        answers: int64 [h].
        context: float32 [h, 1 + features].
    """

    towers: Towers
    histories: Sequence[npt.NDArray[np.int32]]
    answers: torch.Tensor
    context: torch.Tensor
    length: int

    def figure(self) -> float:
        """Of the towers as they are."""
        titles = self.towers.title()
        states = last_states(self.towers.member, titles, self.histories, self.length)
        scores = torch.addmm(self.towers.bias, self.towers.member(states, self.context), titles.T)
        for row, history in enumerate(self.histories):
            scores[row, torch.from_numpy(history).long()] = -torch.inf
        ranks = (scores > scores.gather(1, self.answers[:, None])).sum(1)
        return float(torch.where(ranks < CUT, 1 / torch.log2(ranks + 2.0), 0.0).mean())
