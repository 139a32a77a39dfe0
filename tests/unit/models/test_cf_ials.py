from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from matinee.models.cf import ials
from matinee.models.cf.config import CfConfig

CONFIG = CfConfig(factors=4, unobserved=0.2, regularisation=0.1, sweeps=3)
ROWS, COLUMNS = 17, 30


def watched(seed: int = 1, density: float = 0.3) -> sparse.csr_matrix:
    return sparse.random(ROWS, COLUMNS, density=density, random_state=seed, format="csr", dtype=np.float32)


def vectors(seed: int, count: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, CONFIG.factors)).astype(np.float32)


def objective(
    rows: sparse.csr_matrix,
    members: npt.NDArray[np.float32],
    titles: npt.NDArray[np.float32],
    config: CfConfig,
) -> float:
    """Weighted squared errors, of watched pairs from 1 and of all from 0, and the penalties."""
    weights, predicted = rows.toarray(), (members @ titles.T).astype(np.float64)
    total = (weights * (1 - predicted) ** 2).sum() + config.unobserved * (predicted**2).sum()
    for side, axis in ((members, 1), (titles, 0)):
        frequency = weights.sum(axis) + config.unobserved * weights.shape[axis]
        total += config.regularisation * (frequency**config.frequency_exponent * (side**2).sum(1)).sum()
    return float(total)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("block_bytes", [1, 200, 2**20])
@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_fold_in_is_the_ridge_regression_of_each_row(block_bytes: int, exponent: float) -> None:
    rows, titles = watched(), vectors(0, COLUMNS)
    config = replace(CONFIG, block_bytes=block_bytes, frequency_exponent=exponent)
    found = ials.fold_in(rows, titles, config, titles.T @ titles)
    for row in range(ROWS):
        weight = rows[row].toarray()[0]
        ridge = config.regularisation * (weight.sum() + config.unobserved * COLUMNS) ** exponent
        system = (titles.T * weight) @ titles + config.unobserved * titles.T @ titles + ridge * np.eye(4)
        expected = np.linalg.solve(system, titles.T @ weight) if weight.any() else np.zeros(4)
        np.testing.assert_allclose(found[row], expected, rtol=2e-3, atol=1e-4)


def test_as_many_steps_as_factors_reach_the_exact_solution() -> None:
    rows, titles = watched(), vectors(0, COLUMNS)
    config = replace(CONFIG, sweeps=1, steps=CONFIG.factors)
    members, moved = next(ials.rounds(rows, vectors(1, ROWS), titles, config))
    # Vectors are turned together: what stays is their products.
    exact_members = ials.fold_in(rows, titles, config, titles.T @ titles)
    exact = ials.fold_in(rows.T.tocsr(), exact_members, config, exact_members.T @ exact_members)
    np.testing.assert_allclose(members @ moved.T, exact_members @ exact.T, rtol=1e-2, atol=1e-3)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10_000),
    steps=st.integers(1, 6),
    density=st.floats(0.02, 0.9),
    unobserved=st.floats(0.01, 1.0),
    regularisation=st.floats(0.001, 1.0),
    exponent=st.floats(0.0, 1.5),
)
def test_no_round_raises_the_objective(
    seed: int, steps: int, density: float, unobserved: float, regularisation: float, exponent: float
) -> None:
    rows, members, titles = watched(seed, density), vectors(seed, ROWS), vectors(seed + 1, COLUMNS)
    # A row without a pair is zero after any round: it cannot be lower.
    members[np.diff(rows.indptr) == 0] = 0
    titles[np.diff(rows.T.tocsr().indptr) == 0] = 0
    config = replace(
        CONFIG,
        sweeps=4,
        steps=steps,
        unobserved=unobserved,
        regularisation=regularisation,
        frequency_exponent=exponent,
    )
    before = objective(rows, members, titles, config)
    for moved in ials.rounds(rows, members, titles, config):
        after = objective(rows, *moved, config)
        assert after <= before + 1e-4 * abs(before)
        before = after


@pytest.mark.parametrize(("block_bytes", "count"), [(1, 1), (500, 1), (2**20, 2), (500, 2)])
def test_blocks_and_threads_change_rounding_alone(block_bytes: int, count: int) -> None:
    with threads(1):
        expected = ials.fit(watched(), CONFIG, 3)
    with threads(count):
        found = ials.fit(watched(), replace(CONFIG, block_bytes=block_bytes), 3)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, rtol=1e-3, atol=1e-5)


def test_blocks_hold_each_row_with_a_pair_once() -> None:
    rows = watched(density=0.15)
    found = ials.blocks(rows, replace(CONFIG, block_bytes=300))
    places = np.concatenate([part.rows.numpy() for part in found])
    assert sorted(places) == np.flatnonzero(np.diff(rows.indptr)).tolist()
    again = np.zeros(rows.shape, np.float32)
    for part in found:
        weights = part.weights[:, 0].numpy()
        columns = part.columns.numpy().reshape(weights.shape)
        np.add.at(again, (part.rows.numpy()[:, None], columns), weights)
    np.testing.assert_array_equal(again, rows.toarray())


def test_titles_nobody_watched_are_zero_and_each_round_is_published() -> None:
    rows = watched().tolil()
    rows[:, 7] = 0
    rows = rows.tocsr()
    told: list[int] = []
    published: list[npt.NDArray[np.float32]] = []
    titles = ials.fit(
        rows, CONFIG, 0, progress=lambda done, all_, figures: told.append(done), publish=published.append
    )
    assert not titles[7].any()
    assert titles[8].any()
    assert told == [1, 2, 3]
    np.testing.assert_array_equal(published[-1], titles)
    assert not np.array_equal(published[0], published[1])


def test_going_on_begins_from_members_solved_for_and_new_titles_learn() -> None:
    rows = watched()
    before = ials.fit(rows, replace(CONFIG, sweeps=20), 0)
    before[:3] = np.nan

    def after(titles: npt.NDArray[np.float32]) -> float:
        members = ials.fold_in(rows, titles, CONFIG, titles.T @ titles)
        return objective(rows, members, titles, CONFIG)

    one = replace(CONFIG, sweeps=1)
    gone_on = ials.fit(rows, one, 1, start=before)
    assert np.isfinite(gone_on).all()
    assert gone_on[:3].any()
    assert after(gone_on) < after(ials.fit(rows, one, 1))


def test_rows_without_any_pair_are_no_trouble() -> None:
    nothing = sparse.csr_matrix((ROWS, COLUMNS), dtype=np.float32)
    assert not ials.fit(nothing, CONFIG, 0).any()
    titles = vectors(0, COLUMNS)
    assert not ials.fold_in(nothing, titles, CONFIG, titles.T @ titles).any()


def test_the_same_seed_gives_the_same_bits() -> None:
    with threads(1):
        np.testing.assert_array_equal(ials.fit(watched(), CONFIG, 5), ials.fit(watched(), CONFIG, 5))
