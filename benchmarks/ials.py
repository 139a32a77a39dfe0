"""An epoch of iALS, members and titles, beside implicit's: same factors to start from, threads and loss.

implicit gives a watched pair the confidence alpha, any other 1, and every row the same ridge. That is ours
with frequency exponent 0, unobserved weight 1 / (alpha - 1) and ridge / alpha, its vectors divided by the
root of alpha / (alpha - 1): `same`. After the same epochs ours must have reached implicit's loss, or less.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy import sparse

from benchmarks import gowalla
from benchmarks.common import (
    PeerFailed,
    PeerMissing,
    arguments,
    compare,
    peer_venv,
    pinned,
    run_peer,
    skipped,
)
from benchmarks.peers import REQUIREMENTS
from benchmarks.questions import SHARED
from matinee.models.cf import ials
from matinee.models.cf.config import CfConfig

NAME = "ials"
PEER = "implicit"
ALPHA, RIDGE = 10.0, 5.0
EPOCHS = 5
STEPS = 2
"""Ours a row, one fewer than a fit takes by default: enough for the peer's loss, whose steps are three."""
TOLERANCE = 1e-3
"""By how much, relative, our loss may lie above the peer's."""
TIMEOUT_S = 300.0

Vectors = npt.NDArray[np.float32]


def main() -> None:
    args = arguments(__doc__, _declare)
    most = 1 if args.quick else None
    found = {data: read(SHARED / data) for data, read in DATA.items() if (SHARED / data).is_dir()}
    for data in DATA.keys() - found.keys():
        skipped(NAME, PEER, f"{SHARED / data} is missing")
    # The peer's default first: exact solves take it several times as long.
    for solver in ("cg", "cholesky")[:most]:
        for data, watched in found.items():
            for factors, threads in itertools.product(args.factors[:most], args.threads[:most]):
                race(Race(data=data, watched=watched, factors=factors, threads=threads, solver=solver))


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--factors", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of each side, a core each")


@dataclass(kw_only=True)
class Race:
    """Both sides on one matrix.

    Args:
        watched: float32 [members, titles], 1 where watched.
        solver: the peer's: "cg", its default with three steps, or "cholesky".
        losses: each side's after the epochs, as implicit defines it.
    """

    data: str
    watched: sparse.csr_matrix
    factors: int
    threads: int
    solver: str
    losses: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        draw = np.random.default_rng(0)
        shapes = [(count, self.factors) for count in self.watched.shape]
        self.members, self.titles = (
            draw.normal(0, 0.1 / np.sqrt(self.factors), shape).astype(np.float32) for shape in shapes
        )

    def ours(self) -> float:
        """The median epoch's seconds."""
        config, scale = same(self.factors)
        rounds = ials.rounds(self.watched, self.members / scale, self.titles / scale, config)
        seconds = []
        for _ in range(EPOCHS):
            begun = time.perf_counter()
            members, titles = next(rounds)
            seconds.append(time.perf_counter() - begun)
        self.losses["loss_ours"] = loss(self.watched, members * scale, titles * scale)
        return median(seconds[1:])

    def theirs(self) -> float:
        """The median epoch's seconds."""
        with tempfile.TemporaryDirectory(prefix="matinee-ials-") as scratch:
            given, out = Path(scratch) / "given.npz", Path(scratch) / "out.npz"
            parts = {name: getattr(self.watched, name) for name in ("data", "indices", "indptr")}
            np.savez(given, allow_pickle=False, members=self.members, titles=self.titles, **parts)
            config = {
                "factors": self.factors,
                "regularization": RIDGE,
                "alpha": ALPHA,
                "iterations": EPOCHS,
                "num_threads": self.threads,
                "use_cg": self.solver == "cg",
            }
            answer = run_peer(
                peer_venv(PEER, REQUIREMENTS[PEER]),
                "ials_implicit",
                {"given": str(given), "out": str(out), "config": config},
                cores=self.threads,
                timeout_s=TIMEOUT_S,
                # As implicit asks for: its own threads call a one-threaded BLAS.
                environment={"OPENBLAS_NUM_THREADS": "1"},
            )
            with np.load(out) as found:
                self.losses["loss_theirs"] = loss(self.watched, found["members"], found["titles"])
        return median(answer["seconds"][1:])

    def check(self) -> None:
        """Raises AssertionError where ours is left behind."""
        self.ours(), self.theirs()
        if self.losses["loss_ours"] > (1 + TOLERANCE) * self.losses["loss_theirs"]:
            raise AssertionError(f"{self.data}, {self.factors} factors: losses {self.losses}")


def race(one: Race) -> None:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(one.threads)
    try:
        with pinned(one.threads):
            compare(
                name=NAME,
                peer=PEER,
                metric="an epoch",
                unit="s",
                ours=one.ours,
                theirs=one.theirs,
                higher_is_better=False,
                sizes={
                    "data": one.data,
                    "members": one.watched.shape[0],
                    "titles": one.watched.shape[1],
                    "interactions": one.watched.nnz,
                    "factors": one.factors,
                    "threads": one.threads,
                    "solver": one.solver,
                    "epochs": EPOCHS,
                    "steps": STEPS,
                },
                versions={"implicit": REQUIREMENTS[PEER][0].split("==")[1], "torch": torch.__version__},
                check=one.check,
                more=one.losses,
            )
    except (PeerMissing, PeerFailed) as reason:
        skipped(NAME, PEER, str(reason))
    finally:
        torch.set_num_threads(before)


def same(factors: int) -> tuple[CfConfig, np.float32]:
    """Our settings with implicit's optimum, and what its vectors are divided by."""
    config = CfConfig(
        factors=factors,
        sweeps=EPOCHS,
        steps=STEPS,
        unobserved=1 / (ALPHA - 1),
        regularisation=RIDGE / ALPHA,
        frequency_exponent=0.0,
    )
    return config, np.float32(np.sqrt(ALPHA / (ALPHA - 1)))


def loss(watched: sparse.csr_matrix, members: Vectors, titles: Vectors) -> float:
    """implicit's: confidence times squared error over all pairs, and the ridge."""
    members, titles = members.astype(np.float64), titles.astype(np.float64)
    pairs = watched.tocoo()
    predicted = np.empty(watched.nnz)
    for first in range(0, watched.nnz, 1 << 16):
        part = slice(first, first + (1 << 16))
        predicted[part] = np.einsum("pf,pf->p", members[pairs.row[part]], titles[pairs.col[part]])
    everything = ((members.T @ members) * (titles.T @ titles)).sum()
    fit = everything + (ALPHA * (1 - predicted) ** 2 - predicted**2).sum()
    return float(fit + RIDGE * ((members**2).sum() + (titles**2).sum()))


def users(folder: Path) -> sparse.csr_matrix:
    learned = gowalla.read(folder).train
    return matrix(learned.member, learned.title)


def movielens(folder: Path) -> sparse.csr_matrix:
    with gzip.open(folder / "ratings.csv.gz") as file:
        ratings = pl.read_csv(file.read())
    return matrix(
        *(ratings[name].rank("dense").to_numpy().astype(np.int64) - 1 for name in ("userId", "movieId"))
    )


def matrix(members: npt.NDArray[np.integer], titles: npt.NDArray[np.integer]) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(members), np.float32), (members, titles)))


DATA = {"gowalla": users, "ml-latest-small": movielens}


if __name__ == "__main__":
    main()
