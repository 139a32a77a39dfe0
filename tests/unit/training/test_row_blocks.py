import numpy as np
import pytest
import torch
from scipy import sparse

from matinee.models.cf import ials
from matinee.models.cf.config import CfConfig
from matinee.training.row_blocks import divided, renumbered, sharing

CONFIG = CfConfig(factors=4, block_bytes=300)


@pytest.mark.parametrize(
    ("interactions", "device", "cpus", "tasks"),
    [
        (1_000_000, "cpu", 8, 1),
        (8_388_608, "cpu", 8, 1),
        (8_388_609, "cpu", 8, 2),
        (100_000_000, "cpu", 8, 8),
        (100_000_000, "cpu", 64, 12),
        (100_000_000, "cpu", 1, 1),
        (100_000_000, "cuda", 8, 1),
        (0, "cpu", 8, 1),
    ],
)
def test_tasks_share_what_one_process_would_gather(interactions: int, device: str, cpus: int, tasks: int):
    found = sharing(interactions=interactions, factors=64, device=device, cpus=cpus)
    assert found.tasks == tasks


def test_a_decision_says_why():
    few = sharing(interactions=100_000_000, factors=64, device="cpu", cpus=8)
    assert few.reason == "24414 MiB of vectors are gathered, 2048 a process, 8 CPUs"
    assert sharing(interactions=1, factors=64, device="cuda", cpus=8).reason == "it trains on cuda"


@pytest.mark.parametrize("tasks", [1, 2, 3, 100])
def test_shares_solved_apart_are_the_whole(tasks: int):
    watched = sparse.random(40, 30, density=0.3, random_state=1, format="csr", dtype=np.float32)
    parts = ials.blocks(watched, CONFIG)
    draw = torch.Generator().manual_seed(0)
    fixed = ials.hold(torch.randn(30, 4, generator=draw), 0.1)
    start = torch.randn(40, 4, generator=draw)
    whole = start.clone()
    ials.solve_rows(parts, 2, whole, fixed)
    apart = start.clone()
    shares = divided(parts, tasks)
    assert len(shares) == min(tasks, len(parts))
    for share in shares:
        rows = torch.cat([part.rows for part in share])
        own = start[rows]
        ials.solve_rows(renumbered(share), 2, own, fixed)
        apart[rows] = own
    assert torch.equal(apart, whole)
