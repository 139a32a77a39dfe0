"""How members react to a page: pure arithmetic on arrays, all chance handed in.

V visitors; column 0 is what a visitor searched for, columns 1..k are the page from its top.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matinee.sources.world.config import WorldConfig

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_LOAD_S = 10.0
_GLANCE_S = 1.5
_START_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Chance:
    """The luck of V visitors, one draw per visitor or per visitor and column.

    Drawn by moment and member alone, so that two recommenders meet the same luck.
    """

    searches: Mask
    depth: Floats
    budget_s: Floats
    look: Floats
    click: Floats
    perceive: Floats
    play: Floats
    watch: Floats
    dwell_s: Floats
    rate: Floats
    stars: Floats

    @classmethod
    def draw(cls, config: WorldConfig, columns: int, rng: np.random.Generator) -> Chance:
        """Draws for every member of the world, in the order of their positions."""
        count = config.members
        shape = (count, columns)
        return cls(
            searches=rng.random(count) < config.search_share,
            depth=np.ceil(rng.exponential(config.seen_depth, count)),
            budget_s=60 * rng.lognormal(np.log(80), 0.5, count),
            look=rng.random(shape),
            click=rng.random(shape),
            perceive=config.perception_noise * rng.standard_normal(shape),
            play=rng.random(shape),
            watch=0.8 * rng.standard_normal(shape),
            dwell_s=4 + rng.exponential(8, shape),
            rate=rng.random(shape),
            stars=0.5 * rng.standard_normal(shape),
        )

    def of(self, members: npt.NDArray[np.intp]) -> Chance:
        """The luck of these members."""
        return Chance(**{name: values[members] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class Reaction:
    """What V visitors did, all [V, 1 + k]; times in seconds after the session's start."""

    shown: Mask
    clicked: Mask
    played: Mask
    listed: Mask
    rated: Mask
    watched_s: Floats
    stars: Floats
    shown_at: Floats
    clicked_at: Floats
    end_at: Floats
    """[V], when the session is over."""


def react(
    config: WorldConfig,
    chance: Chance,
    page: npt.NDArray[np.int32],
    liking: npt.NDArray[np.float32],
    runtime_s: npt.NDArray[np.float32],
) -> Reaction:
    """Let visitors look, click, play, stop and rate.

    Args:
        config: thresholds and biases.
        chance: the visitors' luck.
        page: [V, 1 + k] title positions; -1 where there is none.
        liking: [V, 1 + k] utility of those titles; -inf is never clicked.
        runtime_s: [V, 1 + k] seconds.
    """
    place = np.arange(page.shape[1]) - 1.0
    searched = place < 0
    shown = (page >= 0) & np.where(searched, chance.searches[:, None], place < chance.depth[:, None])
    look = np.where(searched, 1.0, (1.0 + np.maximum(place, 0.0)) ** -config.position_bias)
    wish = _sigmoid(liking + chance.perceive - config.click_threshold)
    click = np.where(searched, np.where(np.isfinite(liking), 0.9, 0.0), wish)
    clicked = shown & (chance.look < look) & (chance.click < click)
    played = clicked & (chance.play < _sigmoid(liking + 1.0))
    wanted_s = _sigmoid(0.9 * liking + chance.watch) * runtime_s

    spent = np.cumsum(np.where(played, wanted_s, 0.0), axis=1)
    before = np.concatenate([np.zeros((len(page), 1)), spent[:, :-1]], axis=1)
    there = before < chance.budget_s[:, None]
    shown[:, 1:] &= there[:, 1:2]
    clicked &= there
    played &= there
    watched_s = np.where(played, np.minimum(wanted_s, chance.budget_s[:, None] - before), 0.0)
    rated = played & (watched_s > runtime_s / 3) & (chance.rate < config.rate_share)
    listed = clicked & ~played & (chance.rate < 0.25)
    finite = np.where(np.isfinite(liking), liking, 0.0)
    stars = np.clip(np.round((3.0 + 0.6 * finite + chance.stars) * 2) / 2, 0.5, 5.0)

    took = np.where(clicked, chance.dwell_s + 2, 0.0) + np.where(played, _START_S + watched_s + 12, 0.0)
    took[:, 0] += np.where(chance.searches, _LOAD_S, 0.0)
    took_before = np.concatenate([np.zeros((len(page), 1)), np.cumsum(took, axis=1)[:, :-1]], axis=1)
    opened = took[:, :1]
    shown_at = np.where(searched, 3.0, opened + _GLANCE_S * (place + 1))
    glances = _GLANCE_S * (1 + np.minimum(chance.depth, page.shape[1] - 1))[:, None]
    clicked_at = took_before + chance.dwell_s + np.where(searched, 3.0, glances)
    end_at = took.sum(axis=1) + glances[:, 0] + 3.0
    return Reaction(
        shown=shown,
        clicked=clicked,
        played=played,
        listed=listed,
        rated=rated,
        watched_s=watched_s,
        stars=stars,
        shown_at=shown_at,
        clicked_at=clicked_at,
        end_at=end_at,
    )


def _sigmoid(x: npt.NDArray[np.float32] | Floats) -> Floats:
    bounded = np.asarray(np.clip(x, -60.0, 60.0), np.float64)
    return 1.0 / (1.0 + np.exp(np.negative(bounded))) * (x > -np.inf)
