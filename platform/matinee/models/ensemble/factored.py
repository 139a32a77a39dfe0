"""What members of an ensemble add to the score, as products with their title vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from matinee.models.base import Factored, Model, Query, Scores
from matinee.models.ensemble.cases import Values
from matinee.models.ensemble.weights import segments
from matinee.models.products import Moments, Product, silent


@dataclass(frozen=True, kw_only=True)
class FactoredParts:
    """`Ensemble.score_parts` as products.

    Args:
        titles: title vectors by member model, float32 [titles, d] each.
        moments: of these.
        members: the models.
        signals: (member model, signal), in the order of the weights' columns.
        weights: float64 [segments, signals].
        short_history: as in the config.
    """

    titles: Mapping[str, Scores]
    moments: Mapping[str, Moments]
    members: Mapping[str, Factored]
    signals: Sequence[tuple[str, str]]
    weights: Values
    short_history: int

    @classmethod
    def of(
        cls,
        members: Mapping[str, Model],
        signals: Sequence[tuple[str, str]],
        weights: Values,
        short_history: int,
    ) -> FactoredParts | None:
        """Those of an ensemble; None where one of its members is not factored."""
        factored = {name: model for name, model in members.items() if isinstance(model, Factored)}
        found = {name: model.title_vectors() for name, model in factored.items()}
        titles = {name: vectors for name, vectors in found.items() if vectors is not None}
        if not titles or titles.keys() != members.keys():
            return None
        return cls(
            titles=titles,
            moments={name: Moments.of(vectors) for name, vectors in titles.items()},
            members=factored,
            signals=signals,
            weights=weights,
            short_history=short_history,
        )

    def products(self, query: Query) -> Mapping[str, Product] | None:
        """What each member adds; None where one cannot say it of this query.

        A member that no row's weights name is not asked: it adds zeros.
        """
        weights = self.weights[segments(query, self.short_history)].astype(np.float32)
        found = {}
        for name, model in self.members.items():
            columns = {signal: at for at, (member, signal) in enumerate(self.signals) if member == name}
            heard = {signal: at for signal, at in columns.items() if weights[:, at].any()}
            if not heard:
                found[name] = silent(len(query), self.titles[name].shape[1])
                continue
            products = model.products(query)
            if products is None:
                return None
            moments = self.moments[name]
            weighed = [moments.standardised(products[signal], weights[:, at]) for signal, at in heard.items()]
            found[name] = reduce(add, weighed)
        return found
