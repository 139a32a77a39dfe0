"""iALS's blocks as tasks of a real Ray cluster, one of whose workers dies."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from contracts.model_contract import training_set
from scipy import sparse

from matinee.models.cf import SPEC, ials
from matinee.models.cf.config import CfConfig
from matinee.training import row_blocks

CONFIG = CfConfig(factors=8, sweeps=3, block_bytes=4_000)


@pytest.fixture
def watched() -> sparse.csr_matrix:
    return sparse.random(300, 200, density=0.1, random_state=1, format="csr", dtype=np.float32)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def dies_once(
    fired: Path, parts: Sequence[ials.Block], steps: int, vectors: torch.Tensor, fixed: ials.Fixed
) -> torch.Tensor:
    try:
        fired.touch(exist_ok=False)
    except FileExistsError:
        return row_blocks.solved(parts, steps, vectors, fixed)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process goes on")


@pytest.mark.usefixtures("ray_cluster", "one_thread")
def test_a_fit_by_tasks_is_that_of_one_process_and_survives_a_killed_worker(
    watched: sparse.csr_matrix, tmp_path: Path
) -> None:
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    expected = ials.fit(watched, CONFIG, 0)
    fired = tmp_path / "fired"
    found = ials.fit(watched, CONFIG, 0, place=row_blocks.on_ray(2, partial(dies_once, fired)))
    assert fired.exists()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("ray_cluster", "one_thread")
def test_a_model_is_shared_where_it_outgrows_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CfConfig(method="ials", factors=8, sweeps=2)
    alone, shared, other = SPEC.model(config), SPEC.model(config), SPEC.model(config)
    row_blocks.share(alone, training_set())
    assert alone.place is None
    monkeypatch.setattr(row_blocks, "GATHERED_BYTES", 4 * 8 * len(training_set().interactions) // 2)
    row_blocks.share(shared, training_set())
    assert shared.place is not None
    for model in (shared, other):
        model.fit(training_set(), seed=0)
    np.testing.assert_array_equal(shared._scorer.titles, other._scorer.titles)
