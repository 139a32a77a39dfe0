import numpy as np
import pytest

from matinee.sources.world.behaviour import Chance, Reaction, react
from matinee.sources.world.config import WorldConfig


def visit(liking: float | np.ndarray, *, visitors: int = 4_000, k: int = 10, **given: float) -> Reaction:
    config = WorldConfig(members=visitors, titles=100, **given)  # type: ignore[arg-type]
    chance = Chance.draw(config, 1 + k, np.random.default_rng(0))
    page = np.tile(np.arange(1 + k, dtype=np.int32), (visitors, 1))
    page[:, 0] = -1
    wishes = np.broadcast_to(np.asarray(liking, np.float32), page.shape)
    return react(config, chance, page, wishes, np.full(page.shape, 6_000, np.float32))


def test_more_liked_means_more_clicked_played_and_watched() -> None:
    cold, warm, hot = (visit(liking, position_bias=0.0) for liking in (-2.0, 0.0, 2.0))
    for counted in ("clicked", "played", "watched_s"):
        sums = [getattr(reaction, counted).sum() for reaction in (cold, warm, hot)]
        assert sums[0] < sums[1] < sums[2]
    stars = [reaction.stars[reaction.rated].mean() for reaction in (cold, warm, hot)]
    assert stars == sorted(stars)


def test_at_the_threshold_half_is_clicked() -> None:
    reaction = visit(1.8, position_bias=0.0, perception_noise=0.0, seen_depth=1_000.0)
    assert reaction.clicked[:, 1].mean() == pytest.approx(0.5, abs=0.03)


def test_what_is_off_is_shown_but_never_clicked() -> None:
    reaction = visit(-np.inf)
    assert reaction.shown.any()
    assert not reaction.clicked.any()
    assert not reaction.played.any()


def test_higher_places_are_clicked_more_at_equal_liking() -> None:
    def rates(bias: float) -> np.ndarray:
        reaction = visit(0.5, position_bias=bias, seen_depth=1_000.0, visitors=20_000)
        return reaction.clicked.sum(axis=0)[1:] / reaction.shown.sum(axis=0)[1:]

    biased = rates(1.0)
    assert biased[0] > 1.5 * biased[1] > 2 * biased[9]


def test_nobody_watches_beyond_what_the_evening_holds() -> None:
    config = WorldConfig(members=2_000, titles=100)
    chance = Chance.draw(config, 21, np.random.default_rng(0))
    page = np.tile(np.arange(21, dtype=np.int32), (2_000, 1))
    reaction = react(
        config, chance, page, np.full(page.shape, 3, np.float32), np.full(page.shape, 6_000, np.float32)
    )
    assert (reaction.watched_s.sum(axis=1) <= chance.budget_s + 1e-6).all()
    assert (reaction.watched_s[~reaction.played] == 0).all()
    assert not (reaction.played & ~reaction.clicked).any()
    assert not (reaction.clicked & ~reaction.shown).any()
    assert not (reaction.rated & ~reaction.played).any()
    tail = np.where(reaction.played, 3 + reaction.watched_s + 4, 2)
    done = np.where(reaction.clicked, reaction.clicked_at + tail, 0.0)
    assert (done.max(axis=1) <= reaction.end_at).all()
