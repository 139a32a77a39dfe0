"""cf's rows as tasks of a real Ray cluster, one of whose workers dies."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts.model_contract import training_set
from scipy import sparse

from matinee.models.cf import SPEC, ials, spectral
from matinee.models.cf.config import CfConfig
from matinee.models.cf.model import CollaborativeFiltering
from matinee.training import row_blocks

ALS = CfConfig(method="ials", factors=8, sweeps=3, block_bytes=100_000)
GRAPH = CfConfig(method="spectral", spectral_rank=8, spectral_neighbours=20)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def watched(members: int, titles: int) -> sparse.csr_matrix:
    return sparse.random(members, titles, density=0.1, random_state=1, format="csr", dtype=np.float32)


Body = Callable[..., Any]


@pytest.fixture
def deadly(ray_cluster: str, tmp_path: Path) -> Iterator[Callable[[Body], Body]]:
    """Makes of a task's body one whose first worker is killed."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    fired = tmp_path / "fired"

    def dies_once(body: Body) -> Body:
        def run(*args: Any) -> Any:
            if not fired.exists():
                fired.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return body(*args)

        return run

    yield dies_once
    assert fired.exists()


def test_blocks_solved_by_tasks_are_those_of_one_process_though_a_worker_dies(
    deadly: Callable[[Body], Body],
) -> None:
    rows = watched(8_000, 200)  # Vectors beyond what Ray passes inline.
    found = ials.fit(rows, ALS, 0, place=row_blocks.blocks_on_ray(2, deadly(row_blocks.solved)))
    np.testing.assert_array_equal(found, ials.fit(rows, ALS, 0))


def test_neighbours_found_by_tasks_are_those_of_one_process_though_a_worker_dies(
    deadly: Callable[[Body], Body],
) -> None:
    rows = watched(100, 2 * spectral.PIECE + 10)
    found = spectral.fit(rows, GRAPH, 0, row_blocks.neighbours_on_ray(deadly(spectral.nearest)))
    expected = spectral.fit(rows, GRAPH, 0)
    for name, values in expected.arrays().items():
        np.testing.assert_array_equal(found.arrays()[name], values)


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("config", [ALS, GRAPH])
def test_a_model_is_shared_where_it_outgrows_a_process(config: CfConfig, tmp_path: Path) -> None:
    alone, shared = SPEC.model(config), SPEC.model(config)
    assert isinstance(alone, CollaborativeFiltering)
    assert isinstance(shared, CollaborativeFiltering)
    row_blocks.share(alone, training_set(), limit=2**30)
    row_blocks.share(shared, training_set(), limit=2**10)
    assert (alone.place, alone.neighbours) == (None, None)
    assert shared.place is not None
    assert shared.neighbours is not None
    for model in (alone, shared):
        model.fit(training_set(), seed=0)
    for name, values in alone._scorer.arrays().items():
        np.testing.assert_array_equal(shared._scorer.arrays()[name], values)
