"""A weighted sum of the member models' signals; the weights depend on the query's segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np

from matinee.errors import ConfigError
from matinee.models import discover
from matinee.models.base import Checkpoints, Model, Progress, Query, Scores, Start, TrainingSet
from matinee.models.ensemble.calibration import chances
from matinee.models.ensemble.cases import Cases, Values
from matinee.models.ensemble.config import EnsembleConfig
from matinee.models.ensemble.factored import FactoredParts
from matinee.models.ensemble.holdout import Holdout, inner_set, split_holdout
from matinee.models.ensemble.validation import Validation, validate
from matinee.models.ensemble.weights import SEGMENTS, segments, standardised
from matinee.models.storage import read_model, write_model


class Ensemble(Model):
    """Combines `members`: models by name, given by `with_members`.

    `validation` holds what the hold-out said of the weights once they are learned.
    """

    def __init__(self, config: EnsembleConfig) -> None:
        self.config = config
        self.members: Mapping[str, Model] = {}
        self._signals: Sequence[tuple[str, str]] = ()
        self._weights: Values = np.zeros((len(SEGMENTS), 0))
        self._calibration = np.ones((len(SEGMENTS), 2))
        self.validation: Validation | None = None

    def with_members(self, members: Mapping[str, Model]) -> Ensemble:
        """A new ensemble of `members` with the weights this one learned.

        Raises:
            ConfigError: weights were learned for members of other names.
        """
        weighed = {name for name, _ in self._signals}
        if weighed and weighed != set(members):
            raise ConfigError(f"ensemble weighs {sorted(weighed)}, got members {sorted(members)}")
        ensemble = Ensemble(self.config)
        ensemble.members = dict(members)
        ensemble._learned(self)
        return ensemble

    def _learned(self, other: Ensemble) -> None:
        self._signals, self._weights = other._signals, other._weights
        self._calibration, self.validation = other._calibration, other.validation

    def fit(
        self,
        data: TrainingSet,
        *,
        seed: int,
        progress: Progress | None = None,
        checkpoints: Checkpoints | None = None,
        start: Start | None = None,
    ) -> None:
        """Fit the members on the inner part, learn weights on the held-out one, refit members on `data`.

        Raises:
            ConfigError: no members were given.
        """
        if not self.members:
            raise ConfigError("ensemble has no members; give them by with_members before fit")
        holdout = split_holdout(data, seed=seed)
        steps = 2 * len(self.members) + 1
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if progress:
                progress(done, steps, {})

        inner = inner_set(data, holdout)
        for model in self.members.values():
            model.fit(inner, seed=seed)
            advance()
        self._learned(fit_ensemble(self.members, holdout, config=self.config, seed=seed))
        advance()
        for model in self.members.values():
            model.fit(data, seed=seed)
            advance()

    def score(self, query: Query) -> Scores:
        """The sum of `score_parts`; `probabilities` tells what it means."""
        parts = list(self.score_parts(query).values())
        total: Scores = np.sum(parts, axis=0, dtype=np.float32)
        return total

    def probabilities(self, query: Query) -> Scores:
        """How likely each title is the member's next watch, in the order of `score`: float32 [m, titles].

        Rows sum to 1 over the titles that are not in the history; those in it have 0.
        """
        scores = self.score(query)
        watched = np.zeros(scores.shape, dtype=bool)
        for row, history in enumerate(query.histories):
            watched[row, history] = True
        return chances(scores, watched, self._calibration[segments(query, self.config.short_history)])

    def score_parts(self, query: Query) -> dict[str, Scores]:
        """What each member adds to the score of each title, by member name, float32 [m, titles].

        A member that no row's weights name is not asked: it adds zeros.
        """
        weights = self._weights[segments(query, self.config.short_history)].astype(np.float32)
        columns = {
            name: {signal: column for column, (member, signal) in enumerate(self._signals) if member == name}
            for name in self.members
        }
        asked = [name for name in self.members if weights[:, list(columns[name].values())].any()]
        found = {name: self._part(name, query, weights, columns[name]) for name in asked or self.members}
        silent = np.zeros_like(next(iter(found.values())))
        return {name: found.get(name, silent) for name in self.members}

    def _part(self, name: str, query: Query, weights: Scores, columns: Mapping[str, int]) -> Scores:
        """What a member adds, float32 [m, titles].

        Args:
            weights: float32 [m, signals].
            columns: of the weights, by the member's signals.
        """
        signals = self.members[name].signals(query)
        part: Scores = np.zeros(1, np.float32)
        for signal, column in columns.items():
            part = part + standardised(signals[signal]) * weights[:, column, None]
        return part

    def factored_parts(self) -> FactoredParts | None:
        """`score_parts` as products; None where a member's signals are none. It may take seconds."""
        return FactoredParts.of(self.members, self._signals, self._weights, self.config.short_history)

    def describe(self) -> dict[str, dict[str, float]]:
        """Weights: by segment, by "member.signal"."""
        names = [f"{member}.{signal}" for member, signal in self._signals]
        return {
            segment: dict(zip(names, map(float, row), strict=True))
            for segment, row in zip(SEGMENTS, self._weights, strict=True)
        }

    def save(self, folder: Path) -> None:
        """Write the weights, and each member into a folder of its name."""
        for name, model in self.members.items():
            (folder / name).mkdir()
            model.save(folder / name)
        facts: dict[str, Any] = {
            "members": list(self.members),
            "signals": [list(signal) for signal in self._signals],
            "validation": self.validation and asdict(self.validation),
        }
        arrays = {"weights": self._weights, "calibration": self._calibration}
        write_model(folder, config=self.config, arrays=arrays, facts=facts)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the weights and the members; their classes are found by name among the model folders."""
        config, arrays, facts = read_model(folder)
        ensemble = cls(EnsembleConfig(**config))
        specs = discover()
        ensemble.members = {name: specs[name].model.load(folder / name) for name in facts["members"]}
        ensemble._signals = [(member, signal) for member, signal in facts["signals"]]
        ensemble._weights, ensemble._calibration = arrays["weights"], arrays["calibration"]
        ensemble.validation = facts["validation"] and Validation.read(facts["validation"])
        return ensemble


def fit_ensemble(
    members: Mapping[str, Model], holdout: Holdout, *, config: EnsembleConfig, seed: int
) -> Ensemble:
    """An ensemble of `members` with weights learned from the hold-out, and validated on it.

    Args:
        members: models by name, fitted on `inner_set` of the same hold-out.
        holdout: what `split_holdout` returned.
        config: segments and shrinkage.
        seed: of the run; learning itself draws nothing.
    """
    ensemble = Ensemble(config).with_members(members)
    signals = {
        (name, signal): standardised(values)
        for name, model in members.items()
        for signal, values in model.signals(holdout.query).items()
    }
    cases = Cases.of(holdout, signals, segments(holdout.query, config.short_history))
    ensemble._signals = cases.names
    ensemble._weights, ensemble._calibration, ensemble.validation = validate(cases, config.shrinkage)
    return ensemble
