from __future__ import annotations

import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import torch

from matinee.models.gradients import next_titles_loss, seeded, shard


def test_the_loss_is_the_weighted_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    members, titles = torch.randn(3, 4, generator=generator), torch.randn(7, 4, generator=generator)
    bias = torch.randn(7, generator=generator)
    targets = torch.tensor([[1, 2], [3, 0], [6, 6]])
    weights = torch.tensor([[0.7, 0.3], [1.0, 0.0], [0.5, 0.5]])
    logs = (members @ titles.T + bias).log_softmax(1)
    expected = -(logs.gather(1, targets) * weights).sum(1).mean()
    torch.testing.assert_close(next_titles_loss(members, titles, bias, targets, weights), expected)


def test_seeding_leaves_the_callers_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    with seeded(1):
        torch.rand(3)
    torch.testing.assert_close(torch.rand(2), expected)


def test_alone_a_worker_takes_every_row() -> None:
    assert shard(torch.arange(5)).tolist() == [0, 1, 2, 3, 4]


def test_two_workers_end_with_one_model(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from dataclasses import replace
            sys.path.insert(0, sys.argv[4])
            import numpy as np, torch
            from torch import distributed
            from contracts.model_contract import query, training_set
            from matinee.models import discover
            torch.set_num_threads(1)
            rank, port = int(sys.argv[1]), sys.argv[2]
            store = torch.distributed.TCPStore("127.0.0.1", int(port), 2, rank == 0)
            distributed.init_process_group("gloo", rank=rank, world_size=2, store=store)
            data = training_set()
            for name in ("dnn", "gnn"):
                spec = discover()[name]
                short = {"dnn": {"epochs": 1}, "gnn": {"steps": 4, "backend": "torch"}}[name]
                model = spec.model(replace(spec.presets["test"], **short))
                model.fit(data, seed=0)
                np.save(f"{sys.argv[3]}/{name}{rank}.npy", model.score(query(data)))
            distributed.destroy_process_group()
            """
        )
    )

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    tests = str(Path(__file__).parents[2])
    command = [sys.executable, str(script)]
    workers = [subprocess.Popen([*command, str(rank), port, str(tmp_path), tests]) for rank in (0, 1)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    for name in ("dnn", "gnn"):
        first, second = (np.load(tmp_path / f"{name}{rank}.npy") for rank in (0, 1))
        np.testing.assert_array_equal(first, second)
        assert first.std() > 0
