from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from contracts.model_contract import hit_rate, training_set

from matinee.local.cluster import free_port
from matinee.models.dnn import SPEC
from matinee.models.gradients import greatest, next_titles_loss, seeded, shard, together


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


def test_alone_a_workers_sums_are_the_sums() -> None:
    assert together([1, 2]).tolist() == [1, 2]
    assert greatest(7) == 7


WORKER = """
import sys
from dataclasses import replace
sys.path.insert(0, sys.argv[4])
import numpy as np, torch
from torch import distributed
from contracts.model_contract import hit_rate, query, training_set
from matinee.models import discover
from matinee.models.content import Scaling
from matinee.models.dnn.batches import Batches
from matinee.models.gradients import average_gradients, greatest, together
from matinee.models.positions import positions
from matinee.schema import Outcomes
from matinee.training.shards import blocks, common, gathered, shard_of_member
torch.set_num_threads(1)
rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
store = torch.distributed.TCPStore("127.0.0.1", int(port), 2, rank == 0)
distributed.init_process_group("gloo", rank=rank, world_size=2, store=store)

data = training_set()
shard = gathered(common(data), blocks(data, 2)[rank])
assert len(shard.interactions) < 0.6 * len(data.interactions)

# What is known of everything, of which each holds a part.
assert together([rank, 1]).tolist() == [1, 2]
assert greatest(10 * (1 - rank)) == 10
moved, still = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))
moved.grad = torch.tensor([float(rank), 4.0])
average_gradients([moved, still])
assert moved.grad.tolist() == [0.5, 4.0] and still.grad is None
whole, summed = Scaling.measure(data.member_features), Scaling.measure(shard.member_features, total=together)
np.testing.assert_allclose(summed.mean, whole.mean, rtol=1e-5)
np.testing.assert_allclose(summed.spread, whole.spread, rtol=1e-5)

# The worker with fewer runs meets some again, and both take as many steps.
places = positions(shard.interactions.take(np.arange(40 if rank else len(shard.interactions))))
drawn = Batches(places, length=5, size=8, epochs=3, seed=0, sharded=True)
assert greatest(drawn.steps) == -greatest(-drawn.steps) > 10
runs = [drawn.at(step) for step in range(drawn.steps)]
assert {len(each) for each in runs} == {4}
met = np.concatenate(runs)
assert len(np.unique(met[:, 0])) == len(np.unique(np.concatenate(drawn._cuts)[:, 0]))

for name, short in {"dnn": {"epochs": 1}, "gnn": {"steps": 4, "backend": "torch"}}.items():
    spec = discover()[name]
    model = spec.model(replace(spec.presets["test"], **short))
    model.fit(data, seed=0)
    np.save(f"{folder}/{name}{rank}.npy", model.score(query(data)))
spec = discover()["dnn"]
model = spec.model(spec.presets["test"])
model.fit(shard, seed=3)
np.save(f"{folder}/sharded{rank}.npy", model.score(query(data)))

# Outcomes of one shard's members alone: the other worker has the heads all the same.
told = Outcomes(
    **{name: getattr(data.interactions, name) for name in ("member", "title", "time")},
    ended=data.interactions.time,
    **{name: np.arange(len(data.interactions)) % 2 / np.float32(1) for name in ("click", "play")},
    completion=np.full(len(data.interactions), np.nan, np.float32),
)
told = told.take(shard_of_member(data.interactions, 2)[told.member] == 0)
data = replace(data, outcomes=told)
shard = gathered(common(data), blocks(data, 2)[rank])
assert len(shard.outcomes) == (0 if rank else len(told))
heads = spec.model(replace(spec.presets["test"], epochs=1))
heads.fit(shard, seed=3)
assert list(heads.signals(query(data))) == ["score", "click", "play"]
np.save(f"{folder}/heads{rank}.npy", heads.signals(query(data))["click"])
np.save(f"{folder}/hits{rank}.npy", hit_rate(model, data))
distributed.destroy_process_group()
"""


def test_two_workers_end_with_one_model(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    port = str(free_port())
    tests = str(Path(__file__).parents[2])
    command = [sys.executable, str(script)]
    workers = [subprocess.Popen([*command, str(rank), port, str(tmp_path), tests]) for rank in (0, 1)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    for name in ("dnn", "gnn", "sharded", "heads"):
        first, second = (np.load(tmp_path / f"{name}{rank}.npy") for rank in (0, 1))
        np.testing.assert_array_equal(first, second)
        assert first.std() > 0
    alone = SPEC.model(SPEC.presets["test"])
    alone.fit(training_set(), seed=3)
    assert abs(float(np.load(tmp_path / "hits0.npy")) - hit_rate(alone, training_set())) < 0.1
