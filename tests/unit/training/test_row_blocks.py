import numpy as np
import pytest
import torch
from scipy import sparse

from matinee.models.cf import ials
from matinee.models.cf.config import CfConfig
from matinee.training.row_blocks import divided, renumbered, sharing

CONFIG = CfConfig(factors=4, block_bytes=300)


GIB = 2**30


@pytest.mark.parametrize(
    ("needed", "device", "cpus", "tasks"),
    [
        (0, "cpu", 8, 1),
        (2 * GIB, "cpu", 8, 1),
        (2 * GIB + 1, "cpu", 8, 2),
        (24 * GIB, "cpu", 8, 8),
        (24 * GIB, "cpu", 64, 12),
        (24 * GIB, "cpu", 1, 1),
        (24 * GIB, "cuda", 8, 1),
    ],
)
def test_tasks_share_what_is_beyond_one_process(needed: int, device: str, cpus: int, tasks: int):
    assert sharing(needed=needed, limit=2 * GIB, device=device, cpus=cpus).tasks == tasks


def test_a_decision_says_why():
    many = sharing(needed=24 * GIB, limit=2 * GIB, device="cpu", cpus=8)
    assert many.reason == "24576 MiB for its rows, 2048 a process, 8 CPUs"
    assert sharing(needed=1, limit=1, device="cuda", cpus=8).reason == "it trains on cuda"


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
