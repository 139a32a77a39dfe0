"""Leave-one-out on SASRec's Video data: our ensemble beside SASRec, by the sampled metric and in full.

As in Kang and McAuley, "Self-attentive sequential recommendation", 2018: models learn from all but the last
two events of each member; the second-to-last is for tuning, and only the ensemble's weights come from it;
the last is asked for, with the one before it known. Sampled: among 100 titles drawn uniformly from those the
member has not watched. The data has no times and no content: events stand a day apart.

Fitted models and the peer's lists are kept in a folder: a run that was cut off goes on there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from benchmarks.common import (
    ROOT,
    PeerFailed,
    PeerMissing,
    arguments,
    peer_venv,
    pinned,
    quality,
    run_peer,
    skipped,
)
from benchmarks.peers import REQUIREMENTS
from benchmarks.questions import SHARED, Question, bare_catalogue
from benchmarks.spaces import configured
from matinee.models import discover
from matinee.models.base import Model, Query, TrainingSet
from matinee.models.ensemble.holdout import Holdout
from matinee.models.ensemble.model import Ensemble, fit_ensemble
from matinee.schema import Interactions

NAME = "sasrec_video"
DATA = SHARED / "sasrec-video" / "Video.txt.gz"
DAY = 86_400_000_000
THREADS = 2
NEGATIVES = 100
CASES = 1_000
"""Members whose second-to-last event teaches the ensemble its weights."""
BATCH = 250
PUBLISHED = {"ndcg@10 sampled": 0.5360, "hit@10 sampled": 0.7410}
"""SASRec's, from table III of the paper ("Games")."""

MEMBERS: Mapping[str, Mapping[str, Any]] = {
    "popularity": {},
    "cf": {"method": "ials", "factors": 64, "unobserved": 0.003, "regularisation": 0.02},
    "dnn": {
        "negatives": 2048,
        "batch": 256,
        "sampled": 1.0,
        "epochs": 14,
        "learning_rate": 0.004,
        "dropout": 0.3,
    },
    "gnn": {"backend": "torch", "steps": 100},
}
"""The ensemble's members: settings that differ from the defaults, found on the second-to-last events."""

Histories = list[npt.NDArray[np.int32]]
Figures = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Members with an event to foresee.

    Args:
        histories: per member, what is known; `answers` int64 [m], the event after it.
        negatives: int64 [m, NEGATIVES], titles neither known nor the answer.
    """

    members: npt.NDArray[np.int32]
    histories: Histories
    answers: npt.NDArray[np.int64]
    negatives: npt.NDArray[np.int64]

    def query(self, rows: slice = slice(None)) -> Query:
        histories = self.histories[rows]
        return Query(
            histories=histories,
            times=[np.arange(len(history), dtype=np.int64) * DAY for history in histories],
            now=np.array([len(history) * DAY for history in histories], dtype=np.int64),
        )


def main() -> None:
    args = arguments(__doc__, _declare)
    if not DATA.exists():
        skipped(NAME, "SASRec", f"{DATA} is missing")
        return
    with pinned(THREADS), threadpool_limits(THREADS):
        import torch

        torch.set_num_threads(THREADS)
        run(args)


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache", default=str(ROOT / ".benchmarks" / NAME), help="where models are kept")
    parser.add_argument("--peer-s", type=float, default=200.0, help="seconds that the peer trains")


def run(args: argparse.Namespace) -> None:
    """Fit, weigh, ask, compare."""
    histories, titles = read(DATA)
    learned = training_set(histories, titles)
    count, budget_s = (3_000, 60.0) if args.quick else (10_000, args.peer_s)
    folder = Path(args.cache) / ("quick" if args.quick else "full")
    changes = {"dnn": {"epochs": 5}, "gnn": {"steps": 60}} if args.quick else {}
    members, fit_s = {}, {}
    for name, settings in MEMBERS.items():
        members[name], fit_s[name] = fitted(folder, name, {**settings, **changes.get(name, {})}, learned)
    tuning = asked(histories, titles, drop=2, count=CASES, seed=1)
    begun = time.perf_counter()
    ensemble = weigh(members, tuning)
    fit_s["ensemble"] = time.perf_counter() - begun
    test = asked(histories, titles, drop=1, count=count, seed=0)
    figures = judge(ensemble, test)
    table = {
        name: {
            **{key: round(float(each.mean()), 4) for key, each in found.items()},
            "fit_s": round(fit_s[name]),
        }
        for name, found in figures.items()
    }
    print(json.dumps({"name": f"{NAME}_models", "models": table, "weights": ensemble.describe()}), flush=True)
    best = figures["ensemble"]
    sizes = {
        "members": len(histories),
        "titles": titles,
        "events": sum(map(len, histories)),
        "cases": len(test.answers),
        "threads": THREADS,
    }
    common: dict[str, Any] = {"name": NAME, "groups": test.members, "repeats": 1}
    for metric, value in PUBLISHED.items():
        quality(
            **common,
            peer="SASRec",
            metric=metric,
            ours=best[metric],
            theirs=np.full(len(test.answers), value),
            sizes=sizes,
            versions={},
            source="the paper's table III; the interval is over our members alone",
        )
    try:
        lists, facts = peer_lists(folder, learned, test, budget_s)
    except (PeerMissing, PeerFailed) as reason:
        skipped(NAME, "SASRec", str(reason))
        return
    found = np.where(lists == test.answers[:, None], np.arange(lists.shape[1]), lists.shape[1]).min(1)
    theirs = full_figures(found)
    for metric in theirs:
        quality(
            **common,
            peer="SASRec",
            metric=metric,
            ours=best[metric],
            theirs=theirs[metric],
            sizes={**sizes, "peer_fit_s": round(facts["fit_s"]), "peer_epochs": facts["epochs"]},
            versions={"recbole": facts["version"]},
        )


def read(path: Path) -> tuple[Histories, int]:
    """Titles of each member in time order, and how many titles there are."""
    with gzip.open(path, "rt") as lines:
        pairs = np.array([line.split() for line in lines], dtype=np.int64) - 1
    member, title = pairs[np.argsort(pairs[:, 0], kind="stable")].T
    ends = np.searchsorted(member, np.arange(1, member[-1] + 1))
    return np.split(title.astype(np.int32), ends), int(title.max()) + 1


def training_set(histories: Histories, titles: int) -> TrainingSet:
    """All but the last two events of each member; of those with fewer than three, all."""
    known = [history[:-2] if len(history) >= 3 else history for history in histories]
    lengths = np.array([len(history) for history in known])
    place = np.concatenate([np.arange(length) for length in lengths])
    order = np.argsort(place, kind="stable")
    ids = [str(title) for title in range(titles)]
    return TrainingSet(
        interactions=Interactions(
            member_ids=[str(member) for member in range(len(histories))],
            title_ids=ids,
            member=np.repeat(np.arange(len(histories), dtype=np.int32), lengths)[order],
            title=np.concatenate(known)[order],
            time=place[order] * DAY,
            value=np.full(len(place), np.nan, dtype=np.float32),
        ),
        catalogue=bare_catalogue(ids),
    )


def asked(histories: Histories, titles: int, *, drop: int, count: int, seed: int) -> Asked:
    """Up to `count` members with three events or more, asked for the event `drop` from the end."""
    generator = np.random.default_rng(seed)
    able = np.flatnonzero([len(history) >= 3 for history in histories])
    members = np.sort(generator.permutation(able)[:count])
    negatives = np.empty((len(members), NEGATIVES), dtype=np.int64)
    for row, member in enumerate(members):
        drawn = generator.integers(titles, size=NEGATIVES + 2 * len(histories[member]))
        negatives[row] = drawn[~np.isin(drawn, histories[member][: len(histories[member]) - drop + 1])][
            :NEGATIVES
        ]
    return Asked(
        members=members.astype(np.int32),
        histories=[histories[member][:-drop] for member in members],
        answers=np.array([histories[member][-drop] for member in members], dtype=np.int64),
        negatives=negatives,
    )


def fitted(folder: Path, name: str, settings: Mapping[str, Any], learned: TrainingSet) -> tuple[Model, float]:
    """The model with these settings, from the folder where it lies there; and the seconds its fit took."""
    spec = discover()[name]
    kept = folder / "-".join([name, *(f"{key}={value}" for key, value in sorted(settings.items()))])
    marker = kept / "fit_s.json"
    if marker.exists():
        return spec.model.load(kept), json.loads(marker.read_text())
    model = spec.model(configured(name, "default", settings))
    begun = time.perf_counter()
    model.fit(learned, seed=0)
    fit_s = time.perf_counter() - begun
    kept.mkdir(parents=True, exist_ok=True)
    model.save(kept)
    marker.write_text(json.dumps(fit_s))
    return model, fit_s


def weigh(members: Mapping[str, Model], tuning: Asked) -> Ensemble:
    """The ensemble of fitted members with weights learned from `tuning`."""
    spec = discover()["ensemble"]
    holdout = Holdout(
        inner=np.zeros(0, dtype=bool),
        query=tuning.query(),
        answers=[np.array([answer], dtype=np.int32) for answer in tuning.answers],
        members=tuning.members,
    )
    return fit_ensemble(members, holdout, config=spec.presets["default"], seed=0)


def judge(ensemble: Ensemble, test: Asked) -> dict[str, Figures]:
    """Every metric per member, of the ensemble and of each of its members."""
    models: dict[str, Model] = {**ensemble.members, "ensemble": ensemble}
    sampled: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in models}
    full: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in models}
    for start in range(0, len(test.answers), BATCH):
        rows = slice(start, start + BATCH)
        answers = test.answers[rows][:, None]
        for name, model in models.items():
            scores = np.array(model.score(test.query(rows)))
            wanted = np.take_along_axis(scores, answers, 1)
            # Equal scores count against the answer.
            sampled[name].append((np.take_along_axis(scores, test.negatives[rows], 1) >= wanted).sum(1))
            for row, history in enumerate(test.histories[rows]):
                scores[row, history] = -np.inf
            full[name].append((scores >= wanted).sum(1) - 1)
    return {
        name: {**sampled_figures(np.concatenate(sampled[name])), **full_figures(np.concatenate(full[name]))}
        for name in models
    }


def sampled_figures(rank: npt.NDArray[np.int64]) -> Figures:
    """By the answer's rank, from 0, among the drawn titles."""
    return {"ndcg@10 sampled": _gain(rank, 10), "hit@10 sampled": (rank < 10).astype(np.float64)}


def full_figures(rank: npt.NDArray[np.int64]) -> Figures:
    """By the answer's rank, from 0, among all titles not watched."""
    return {
        "ndcg@10 full": _gain(rank, 10),
        "recall@10 full": (rank < 10).astype(np.float64),
        "ndcg@20 full": _gain(rank, 20),
    }


def _gain(rank: npt.NDArray[np.int64], places: int) -> npt.NDArray[np.float64]:
    return np.where(rank < places, 1 / np.log2(rank + 2), 0.0)


def peer_lists(
    folder: Path, learned: TrainingSet, test: Asked, budget_s: float
) -> tuple[npt.NDArray[np.int32], dict[str, Any]]:
    """What RecBole's SASRec, cross-entropy over all titles, ranks first for each member.

    Raises:
        PeerMissing: it cannot be installed.
        PeerFailed: it gave no answer.
    """
    kept, facts = folder / f"peer-{budget_s:.0f}.npy", folder / f"peer-{budget_s:.0f}.json"
    if not facts.exists():
        question = Question(
            learned=learned,
            query=test.query(),
            members=test.members,
            relevant=[np.array([answer], dtype=np.int32) for answer in test.answers],
        )
        python = peer_venv("recbole", REQUIREMENTS["recbole"])
        with tempfile.TemporaryDirectory(prefix=f"matinee-{NAME}-") as scratch:
            question.task(answers=False).write(f"{scratch}/task.npz")
            request = {
                "task": f"{scratch}/task.npz",
                "out": str(kept.resolve()),
                "model": "SASRec",
                "config": {"train_neg_sample_args": None},
                "seed": 0,
                "limits": {"epochs": 10_000, "budget_s": budget_s},
                "threads": THREADS,
            }
            found = run_peer(
                python,
                "recommend_recbole",
                request,
                cores=THREADS,
                timeout_s=2 * budget_s + 300,
                environment={"OMP_NUM_THREADS": str(THREADS)},
            )
        facts.write_text(json.dumps(found))
    return np.load(kept), json.loads(facts.read_text())


if __name__ == "__main__":
    main()
