"""A member's scores as answers read them: of given titles, and the best of those that are allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from matinee.serving.availability import Mask
from matinee.serving.rank import top_k

Values = npt.NDArray[np.float32]
Positions = npt.NDArray[np.intp]


class TitleScores(Protocol):
    """Scores of one member, t titles. Higher is better; ties go to the lower position."""

    def at(self, positions: Positions) -> Values:
        """Scores of titles, float32 [n]."""
        ...

    def parts_at(self, positions: Positions) -> Mapping[str, Values]:
        """What they are the sum of, float32 [n] each."""
        ...

    def best(self, allowed: Mask, k: int) -> Positions:
        """The best k of the titles that are allowed, bool [t], best first; fewer only where fewer are."""
        ...

    def ranked(self, pool: Positions, k: int) -> Positions:
        """The best k of these titles, best first."""
        ...


@dataclass(frozen=True, kw_only=True)
class EveryTitle:
    """Scores that are all there.

    Args:
        values: float32 [t].
        parts: what they are the sum of, each float32 [t].
    """

    values: Values
    parts: Mapping[str, Values] = field(default_factory=dict)

    def at(self, positions: Positions) -> Values:
        """As `TitleScores`."""
        return self.values[positions]

    def parts_at(self, positions: Positions) -> Mapping[str, Values]:
        """As `TitleScores`."""
        return {name: values[positions] for name, values in self.parts.items()}

    def best(self, allowed: Mask, k: int) -> Positions:
        """As `TitleScores`."""
        return top_k(self.values, allowed, k)

    def ranked(self, pool: Positions, k: int) -> Positions:
        """As `TitleScores`."""
        return ordered(pool, self.values[pool])[:k]


def ordered(positions: Positions, scores: Values) -> Positions:
    """Positions by their scores, float32 [n], best first."""
    return positions[np.lexsort((positions, -scores))]
