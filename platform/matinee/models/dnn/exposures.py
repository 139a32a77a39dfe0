"""Which state of a run a shown title belongs to, and the loss of the heads that foresee what came of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from matinee.models.dnn.config import DnnConfig
from matinee.models.dnn.network import Towers
from matinee.models.histories import SITTING_GAP_US
from matinee.models.positions import Positions
from matinee.schema import Interactions, Outcomes

MOST = 4_096
"""Shown titles that a step learns from at most."""

Rows = npt.NDArray[np.int64]


class Exposures:
    """Shown titles by the state of their member at that moment; members without watches are left out.

    Args:
        places: of `interactions`.
    """

    def __init__(self, outcomes: Outcomes, interactions: Interactions, places: Positions) -> None:
        shown = len(outcomes)
        member = np.concatenate([outcomes.member, places.member])
        time = np.concatenate([outcomes.time, interactions.time[places.row]])
        kind = np.arange(len(member)) >= shown
        order = np.lexsort((kind, time, member))
        at = np.empty(len(order), np.int64)
        at[order] = np.cumsum(kind[order])
        at = at[:shown]
        first = np.searchsorted(places.member, outcomes.member)
        present = np.isin(outcomes.member, places.member)
        # A member has one state more than places: the one after the last.
        self._ordinal = np.cumsum(np.arange(len(places)) == places.start) - 1
        keys = at[present] + self._ordinal[first[present]]
        order = np.argsort(keys, kind="stable")
        rows = np.flatnonzero(present)[order]
        self._keys, self._places = keys[order], places
        self._title = outcomes.title[rows].astype(np.int64)
        watched = np.append(interactions.time[places.row], 0)
        before = at[rows] > first[rows]
        since = outcomes.time[rows] - watched[at[rows] - 1]
        self._sitting = (before & (since <= SITTING_GAP_US)).astype(np.float32)
        self._labels = {name: getattr(outcomes, name)[rows] for name in ("click", "play", "completion")}

    def shares(self, total: Callable[[npt.ArrayLike], npt.NDArray[np.float64]]) -> dict[str, float]:
        """How often each outcome comes, smoothed; those that are known of no shown title are left out.

        Args:
            total: sums over those who hold the other shards.
        """
        labels = self._labels.values()
        known = total([[np.isfinite(label).sum(), np.nansum(label, dtype=np.float64)] for label in labels])
        return {
            name: float((came + 0.5) / (count + 1))
            for name, (count, came) in zip(self._labels, known, strict=True)
            if count
        }

    def loss(
        self,
        towers: Towers,
        states: torch.Tensor,
        vectors: torch.Tensor | None,
        runs: Rows,
        config: DnnConfig,
        generator: torch.Generator,
    ) -> torch.Tensor:
        """Weighted sum of the heads' cross-entropies at up to `MOST` of the runs' shown titles.

        Args:
            states: float [runs, length + 1, width].
            vectors: float32 [titles, width], all title vectors where they are at hand.
        """
        run, column, rows = self._of(runs)
        drawn = torch.randperm(len(rows), generator=generator)[:MOST].numpy()
        run, column, rows = run[drawn], column[drawn], rows[drawn]
        device = states.device
        told = torch.zeros(len(rows), towers.member.told, device=device)
        told[:, 0] = torch.from_numpy(self._sitting[rows]).to(device)
        chosen = torch.from_numpy(run * states.shape[1] + column).to(device)
        members = towers.member(states.flatten(0, 1).index_select(0, chosen), told)
        at = torch.from_numpy(self._title[rows]).to(device)
        titles = towers.title(at) if vectors is None else functional.embedding(at, vectors)
        bias = functional.embedding(at, towers.biases()[:, None]).squeeze(1)
        total = titles.new_zeros(())
        for name, head in towers.heads.items():
            label = torch.from_numpy(self._labels[name][rows]).to(device)
            known = label.isfinite()
            losses = functional.binary_cross_entropy_with_logits(
                head(members, titles, bias).float(), label.nan_to_num(), reduction="none"
            )
            total = total + config.outcome_weight * (losses * known).sum() / known.sum().clamp(min=1)
        return total

    def _of(self, runs: Rows) -> tuple[Rows, Rows, Rows]:
        """Per shown title at states of the runs: its run, the state's column, its row."""
        begin, end = runs[:, 0], runs[:, 1]
        ordinal = self._ordinal[begin]
        last = end + (self._places.stop[begin] == end)
        low = np.searchsorted(self._keys, begin + ordinal)
        counts = np.searchsorted(self._keys, last + ordinal) - low
        run = np.repeat(np.arange(len(runs)), counts)
        rows = np.arange(len(run)) + np.repeat(low - (np.cumsum(counts) - counts), counts)
        return run, self._keys[rows] - begin[run] - ordinal[run], rows
