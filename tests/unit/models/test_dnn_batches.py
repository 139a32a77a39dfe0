from __future__ import annotations

import numpy as np
from contracts.model_contract import training_set
from hypothesis import given
from hypothesis import strategies as st

from matinee.models.dnn.batches import Batches, runs
from matinee.models.positions import positions

PLACES = positions(training_set().interactions)


@given(st.integers(2, 40), st.integers(0, 5))
def test_runs_of_an_epoch_hold_every_place_once_and_no_two_members(length: int, epoch: int) -> None:
    cut = runs(PLACES, length, epoch)
    held = np.concatenate([np.arange(first, stop) for first, stop in cut])
    np.testing.assert_array_equal(np.sort(held), np.arange(len(PLACES)))
    assert (np.diff(cut, axis=1) <= length).all()
    np.testing.assert_array_equal(PLACES.member[cut[:, 0]], PLACES.member[cut[:, 1] - 1])


def test_odd_epochs_cut_in_the_middle_of_the_runs_of_even_ones() -> None:
    assert PLACES.stop[0] >= 6
    first, second = (runs(PLACES, 4, epoch)[:2].tolist() for epoch in (0, 1))
    assert first[0] == [0, 4]
    assert second == [[0, 2], [2, 6]]


def test_a_step_is_its_number_and_the_seed_alone() -> None:
    one, again, other = (Batches(PLACES, length=8, size=4, epochs=3, seed=seed) for seed in (1, 1, 2))
    backwards = [again.at(step) for step in reversed(range(one.steps))][::-1]
    for step, batch in enumerate(backwards):
        np.testing.assert_array_equal(one.at(step), batch)
    assert any(not np.array_equal(one.at(step), other.at(step)) for step in range(one.steps))
    met = np.concatenate([one.at(step) for step in range(-(-len(runs(PLACES, 8, 0)) // 4))])
    assert sorted(map(tuple, met.tolist())) == sorted(map(tuple, runs(PLACES, 8, 0).tolist()))
