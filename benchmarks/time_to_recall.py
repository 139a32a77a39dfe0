"""Time to Recall@20 of .183 on Gowalla (LightGCN's split, LightGCN's figure): ours beside RecBole's LightGCN.

Ours is timed from interactions in memory to everyone's lists. The peer trains for a multiple of that (looking
at its lists is not counted) and is given the test's answers to know when it is there; where it isn't by then,
the ratio is a lower bound.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

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
from benchmarks.peers.recommend import Task, accuracy, joined
from matinee.models.cf import SPEC
from matinee.training import evaluate

NAME = "time_to_recall"
PEER = "RecBole's LightGCN on CPU"
METRIC = "recall@20"
REACH = 0.183
CONFIG = replace(
    SPEC.presets["sparse"],
    spectral_member_exponent=0.4,
    spectral_title_exponent=0.5,
    spectral_rank=96,
    spectral_iterations=2,
    spectral_neighbours=500,
)
"""Our filter, made smaller: the race asks for less than its best lists."""


def main() -> None:
    args = arguments(__doc__, _declare)
    if not gowalla.DATA.is_dir():
        skipped(NAME, PEER, f"{gowalla.DATA} is missing")
        return
    with pinned(args.threads), threadpool_limits(args.threads):
        try:
            split = gowalla.read(gowalla.DATA)
            python = peer_venv("recbole", REQUIREMENTS["recbole"])
            race = Race(split=split, task=task(split), python=python, times=args.times, threads=args.threads)
            compare(
                name=NAME,
                peer=PEER,
                metric=f"time to {METRIC} {REACH}",
                unit="s",
                ours=race.ours,
                theirs=race.theirs,
                higher_is_better=False,
                sizes={
                    "members": race.task.members,
                    "titles": race.task.titles,
                    "interactions": len(race.task.member),
                    "threads": args.threads,
                    "times": args.times,
                },
                versions=race.versions,
                check=race.check,
                more=race.seen,
            )
        except (PeerMissing, PeerFailed) as reason:
            skipped(NAME, PEER, str(reason))


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--times", type=float, default=60.0, help="how often our time the peer may train")
    parser.add_argument("--threads", type=int, default=2, help="and cores, of either side")


@dataclass(kw_only=True)
class Race:
    """Both sides on one split.

    Args:
        task: the split as the peer is given it.
        times: how often our time the peer may train.
        threads: of either side.
        seen: each side's best figure; "bound": "lower" where the peer was not there in its time.
    """

    split: evaluate.Split
    task: Task
    python: Path
    times: float
    threads: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    seen: dict[str, Any] = field(default_factory=dict)
    own_s: float = 0.0

    def check(self) -> None:
        """Raises AssertionError where ours doesn't reach the figure."""
        begun = time.perf_counter()
        lists = self._lists()
        self.own_s = time.perf_counter() - begun
        found = float(accuracy(lists, self.task.answers)[METRIC].mean())
        if found < REACH:
            raise AssertionError(f"ours reaches {METRIC} {found:.4f}, below {REACH}")
        self.seen["ours_recall"] = round(found, 4)

    def ours(self) -> float:
        begun = time.perf_counter()
        self._lists()
        return time.perf_counter() - begun

    def _lists(self) -> npt.NDArray[np.int32]:
        model = gowalla.fitted(self.split, CONFIG)
        return evaluate.rank(model.score, evaluate.cases(self.split).query)

    def theirs(self) -> float:
        """Seconds that the peer trained: until it was there, or all it may."""
        budget_s = self.times * self.own_s
        with tempfile.TemporaryDirectory(prefix="matinee-recall-") as scratch:
            self.task.write(f"{scratch}/task.npz")
            request = {
                "task": f"{scratch}/task.npz",
                "out": f"{scratch}/lists.npy",
                "model": "LightGCN",
                "config": {"n_layers": 3, "reg_weight": 1e-4},
                "seed": 0,
                "limits": {"epochs": 10_000, "budget_s": budget_s, "metric": METRIC, "enough": REACH},
                "threads": self.threads,
            }
            timeout_s = 3 * budget_s + 600
            found = run_peer(
                self.python, "recommend_recbole", request, cores=self.threads, timeout_s=timeout_s
            )
        self.versions["recbole"] = found["version"]
        self.seen["theirs_recall"] = round(max(found["best"], self.seen.get("theirs_recall", 0.0)), 4)
        if found["best"] < REACH:
            self.seen["bound"] = "lower"
        return float(found["fit_s"] if found["best"] >= REACH else found["trained_s"])


def task(split: evaluate.Split) -> Task:
    """The split as a task: members with a test title are asked about, and those titles are the answers."""
    cases = evaluate.cases(split)
    history, bounds = joined(cases.query.histories)
    answer, answer_bounds = joined(cases.relevant)
    return Task(
        member=split.train.member,
        title=split.train.title,
        asked=cases.members,
        history=history,
        bounds=bounds,
        answer=answer,
        answer_bounds=answer_bounds,
        members=len(split.train.member_ids),
        titles=len(split.train.title_ids),
    )


if __name__ == "__main__":
    main()
