import numpy as np
import pytest

from matinee.sources.world.config import Shift, WorldConfig
from matinee.sources.world.taste import Tastes, make_tastes
from matinee.sources.world.titles import DAY, Titles, make_titles


def made(**given: object) -> tuple[WorldConfig, Titles, Tastes]:
    config = WorldConfig(members=300, titles=200, **given)  # type: ignore[arg-type]
    titles = make_titles(config, 0)
    return config, titles, make_tastes(config, titles, 0)


def alike(tastes: Tastes, titles: Titles, one: int, other: int, members: np.ndarray | None = None) -> float:
    """Mean rank-free correlation of the members' likings at two moments, on titles on offer at both."""
    who = np.arange(300) if members is None else members
    first, second = (tastes.utility(who, titles, time) for time in (one, other))
    kept = np.isfinite(first) & np.isfinite(second)
    pairs = zip(first, second, kept, strict=True)
    return float(np.mean([np.corrcoef(a[on], b[on])[0, 1] for a, b, on in pairs]))


def test_unsuitable_and_unreleased_titles_are_not_liked_at_all() -> None:
    config, titles, tastes = made(cold_share=0.3)
    liking = tastes.utility(np.arange(300), titles, config.start)
    off = (titles.maturity > tastes.age[:, None]) | (titles.released > config.start)
    assert (np.isneginf(liking) == off).all()
    assert off.any(axis=1).all()


def test_liking_is_near_standard_normal() -> None:
    config, titles, tastes = made()
    liking = tastes.utility(np.arange(300), titles, config.start)
    known = liking[np.isfinite(liking)]
    assert abs(known.mean()) < 1.0
    assert 0.7 < known.std() < 1.6


def test_members_differ_and_stand_still_without_drift() -> None:
    config, titles, tastes = made(cold_share=0.0)
    assert alike(tastes, titles, config.start, config.start + 300 * DAY) > 0.97


def test_slow_drift_moves_evenly_halfway_and_stops() -> None:
    config, titles, tastes = made(cold_share=0.0, drift_days=100.0)
    at = [alike(tastes, titles, config.start, config.start + day * DAY) for day in (0, 25, 50, 100)]
    assert at[0] == pytest.approx(1.0)
    assert at[0] > at[1] > at[2] > at[3]
    genres, _ = tastes.at(np.arange(300), config.start + 100 * DAY)
    later, _ = tastes.at(np.arange(300), config.start + 500 * DAY)
    assert np.array_equal(genres, later)
    assert np.allclose(genres, (tastes.genres[0] + tastes.genres[1]) / 2, atol=1e-6)


def test_a_shift_turns_the_tastes_of_its_share_at_its_moment() -> None:
    config, titles, tastes = made(cold_share=0.0, shifts=(Shift(day=10, share=0.4),))
    turned = np.flatnonzero(tastes.shifted[0])
    others = np.flatnonzero(~tastes.shifted[0])
    assert 0.3 < len(turned) / 300 < 0.5
    before, after = config.start + 9 * DAY, config.start + 10 * DAY
    assert alike(tastes, titles, config.start, before) > 0.99
    assert alike(tastes, titles, before, after, others) > 0.99
    assert alike(tastes, titles, before, after, turned) < 0.8


def test_children_keep_to_what_children_like() -> None:
    _, _, tastes = made(child_share=1.0, shifts=(Shift(day=1),))
    assert tastes.age.max() < 13
    assert (tastes.genres > 0).sum(axis=-1).max() <= 5
