"""The simulated members and the truth about them: how much each likes each title at any moment."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from matinee.sources.dataset import MEMBER_SCHEMA
from matinee.sources.world.config import WorldConfig
from matinee.sources.world.titles import (
    CHILD_GENRES,
    DAY,
    GENRES,
    LANGUAGE_WEIGHTS,
    LANGUAGES,
    Titles,
)

_SCALE = 1.4
_GENRE_WEIGHT = 0.85
_STYLE_WEIGHT = 0.6
_FOREIGN = -1.2
_FRESH = 0.5
_FRESH_DAYS = 30.0


@dataclass(frozen=True, kw_only=True)
class Tastes:
    """The members and their tastes. M members, G genres, A style axes, S shifts.

    Each member has 2 + S tastes: the first, the one slow drift leads to, and one per shift.

    Args:
        member_ids: length M.
        age: int16 [M], years; nobody likes what is unsuitable at their age.
        speaks: bool [M, languages].
        activity: float32 [M], mean sessions a week.
        mainstream: float32 [M], weight of quality against own taste.
        genres: float32 [2 + S, M, G], each row sums to one.
        styles: float32 [2 + S, M, A], about standard normal.
        shifted: bool [S, M], who takes part in a shift.
        offset: mean of the raw genre affinity at the start.
        spread: its standard deviation.
        config: what the tastes were drawn from.
    """

    member_ids: list[str]
    age: npt.NDArray[np.int16]
    speaks: npt.NDArray[np.bool_]
    activity: npt.NDArray[np.float32]
    mainstream: npt.NDArray[np.float32]
    genres: npt.NDArray[np.float32]
    styles: npt.NDArray[np.float32]
    shifted: npt.NDArray[np.bool_]
    offset: float
    spread: float
    config: WorldConfig

    def at(
        self, members: npt.NDArray[np.intp], time: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Genre mixtures [m, G] and style preferences [m, A] of `members` (positions) at `time`."""
        days = (time - self.config.start) / DAY
        genres, styles = self.genres[0, members], self.styles[0, members]
        if self.config.drift_days is not None:
            moved = np.float32(0.5 * min(1.0, max(0.0, days / self.config.drift_days)))
            genres = (1 - moved) * genres + moved * self.genres[1, members]
            styles = (1 - moved) * styles + moved * self.styles[1, members]
        for number, shift in enumerate(self.config.shifts):
            if days >= shift.day:
                weight = np.float32(shift.strength) * self.shifted[number, members, None]
                genres = (1 - weight) * genres + weight * self.genres[2 + number, members]
                styles = (1 - weight) * styles + weight * self.styles[2 + number, members]
        return genres, styles

    def utility(self, members: npt.NDArray[np.intp], titles: Titles, time: int) -> npt.NDArray[np.float32]:
        """How much `members` like each title, float32 [m, T], about standard normal.

        -inf where the title is unsuitable at the member's age or not yet released.
        """
        genres, styles = self.at(members, time)
        affinity = (genres @ titles.genres.T - self.offset) / self.spread
        style = styles @ titles.styles.T / np.sqrt(styles.shape[1])
        main = self.mainstream[members, None]
        own = _GENRE_WEIGHT * affinity + _STYLE_WEIGHT * style
        liking = _SCALE * (main * titles.quality + (1 - main) * own)
        liking += np.where(self.speaks[members][:, titles.language], 0.0, _FOREIGN)
        age_days = (time - titles.released) / DAY
        liking += _FRESH * np.exp(-np.maximum(age_days, 0.0) / _FRESH_DAYS)
        off = (titles.maturity > self.age[members, None]) | (titles.released > time)
        return np.where(off, -np.inf, liking).astype(np.float32)

    def table(self) -> pa.Table:
        """`MEMBER_SCHEMA` and the languages each member speaks."""
        count = len(self.member_ids)
        spoken = [[LANGUAGES[i] for i in np.flatnonzero(row)] for row in self.speaks]
        columns = [
            pa.array(self.member_ids),
            pa.array(self.age),
            pa.nulls(count, pa.string()),
            pa.nulls(count, pa.string()),
        ]
        known = pa.Table.from_arrays(columns, schema=MEMBER_SCHEMA)
        return known.append_column("languages", pa.array(spoken, pa.list_(pa.string())))


def make_tastes(config: WorldConfig, titles: Titles, seed: int) -> Tastes:
    """Draw members; the same arguments give the same ones."""
    rng = np.random.default_rng([seed, 2])
    count, tastes = config.members, 2 + len(config.shifts)
    child = rng.random(count) < config.child_share
    age = np.where(child, rng.integers(4, 13, count), rng.integers(18, 80, count)).astype(np.int16)
    allowed = np.where(child[:, None], np.isin(GENRES, CHILD_GENRES)[None, :], True)
    mixtures = rng.gamma(0.35, size=(tastes, count, len(GENRES))) * allowed + 1e-6 * allowed
    genres = (mixtures / mixtures.sum(axis=-1, keepdims=True)).astype(np.float32)
    speaks = np.zeros((count, len(LANGUAGES)), np.bool_)
    speaks[np.arange(count), rng.choice(len(LANGUAGES), count, p=LANGUAGE_WEIGHTS)] = True
    speaks |= rng.random(speaks.shape) < np.array([0.5, 0.1, 0.05, 0.05, 0.1])
    centre = config.mainstream * 5
    main = rng.beta(max(centre, 1e-3), max(5 - centre, 1e-3), count)
    activity = config.sessions_per_week * rng.lognormal(-0.32, 0.8, count)
    raw = genres[0, :2_000] @ titles.genres.T
    return Tastes(
        member_ids=[f"m{number:06d}" for number in range(count)],
        age=age,
        speaks=speaks,
        activity=activity.astype(np.float32),
        mainstream=main.astype(np.float32),
        genres=genres,
        styles=rng.standard_normal((tastes, count, config.style_axes)).astype(np.float32),
        shifted=np.array([rng.random(count) < shift.share for shift in config.shifts], np.bool_).reshape(
            len(config.shifts), count
        ),
        offset=float(raw.mean()),
        spread=float(raw.std()) or 1.0,
        config=config,
    )
