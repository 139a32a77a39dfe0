"""Leave-one-out on SASRec's Video data: our ensemble beside SASRec, by the sampled metric and in full.

As in Kang and McAuley, "Self-attentive sequential recommendation", 2018: models learn from all but the last
two events of each member; the second-to-last is for tuning, and only the ensemble's weights and the peer's
epoch come from it; the last is asked for, with the one before it known. Sampled: among 100 titles drawn
uniformly from those the member has not watched. The data has no times and no content: events stand a day
apart.

SASRec runs twice: as our preset of the paper's recipe and in RecBole. Models, lists and, of long fits,
checkpoints are kept in a folder: a run that was cut off goes on there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from matinee.sources.published import read_sequences
from matinee.training import evaluate
from matinee.training.checkpoints import FitCheckpoints

NAME = "sasrec_video"
DATA = SHARED / "sasrec-video" / "Video.txt.gz"
DAY = 86_400_000_000
NEGATIVES = 100
TUNING = 3_000
"""Members whose second-to-last event teaches the ensemble its weights and the peer its epoch."""
EVERY = 500
"""Optimiser steps between checkpoints."""
PUBLISHED = {"ndcg@10 sampled": 0.5360, "hit@10 sampled": 0.7410}
"""SASRec's, from table III of the paper ("Games")."""

Figures = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model of ours: the settings that differ from the preset's were found on the second-to-last events."""

    model: str
    preset: str = "default"
    settings: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)


MEMBERS = {
    "popularity": Entry(model="popularity"),
    "cf": Entry(
        model="cf",
        settings={"method": "ials", "factors": 64, "unobserved": 0.003, "regularisation": 0.02},
    ),
    "dnn": Entry(
        model="dnn",
        preset="sasrec",
        settings={
            "loss": "softmax",
            "negatives": 2048,
            "batch": 256,
            "epochs": 15,
            "patience": None,
            "learning_rate": 0.003,
            "length": 20,
            "dropout": 0.3,
        },
        quick={"epochs": 3},
    ),
    "gnn": Entry(model="gnn", settings={"backend": "torch", "steps": 150, "targets": 3}, quick={"steps": 60}),
}
SASREC = {
    "sasrec": Entry(model="dnn", preset="sasrec", settings={"width": 50, "length": 20}, quick={"epochs": 3}),
    "sasrec, softmax": MEMBERS["dnn"],
}
"""The paper's recipe, and its encoder under a stronger loss. 19 in 20 members have at most 20 events to read,
so no more are looked at."""
PEER = {"train_neg_sample_args": None, "MAX_ITEM_LIST_LENGTH": 20, "train_batch_size": 512}
"""RecBole's: cross-entropy over all titles; other settings are its defaults."""


def main() -> None:
    args = arguments(__doc__, _declare)
    if not DATA.exists():
        skipped(NAME, "SASRec", f"{DATA} is missing")
        return
    with pinned(args.threads), threadpool_limits(args.threads):
        import torch

        torch.set_num_threads(args.threads)
        run(args)


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache", default=str(ROOT / ".benchmarks" / NAME), help="where models are kept")
    parser.add_argument("--peer-s", type=float, default=3600.0, help="most seconds that the peer trains")
    parser.add_argument("--threads", type=int, default=2)


def run(args: argparse.Namespace) -> None:
    """Fit, weigh, ask, compare."""
    learned, tuning, test = questions(3_000 if args.quick else 10_000)
    folder = Path(args.cache) / ("quick" if args.quick else "full")
    found = {name: fitted(folder, entry, learned, args.quick) for name, entry in MEMBERS.items()}
    members = {name: model for name, (model, _) in found.items()}
    begun = time.perf_counter()
    ensemble = weigh(members, tuning)
    weighed_s = time.perf_counter() - begun
    sides = {
        **found,
        **{name: fitted(folder, entry, learned, args.quick) for name, entry in SASREC.items()},
        "ensemble": (ensemble, weighed_s),
    }
    among = evaluate.sampled_titles(test, negatives=NEGATIVES)
    figures = {name: judge(model, test, among) for name, (model, _) in sides.items()}
    table = {
        name: {
            **{key: round(float(each.mean()), 4) for key, each in figures[name].items()},
            "fit_s": round(fit_s),
        }
        for name, (_, fit_s) in sides.items()
    }
    print(json.dumps({"name": f"{NAME}_models", "models": table, "weights": ensemble.describe()}), flush=True)
    sizes = {
        "members": len(learned.interactions.member_ids),
        "titles": len(learned.catalogue),
        "learned": len(learned.interactions),
        "cases": len(test),
        "threads": args.threads,
    }

    def beside(peer: str, theirs: Figures, versions: Mapping[str, str], **more: Any) -> None:
        for metric, values in theirs.items():
            quality(
                name=NAME,
                peer=peer,
                metric=metric,
                ours=figures["ensemble"][metric],
                theirs=values,
                groups=test.members,
                repeats=1,
                sizes=sizes,
                versions=versions,
                **more,
            )

    source = "the paper's table III; the interval is over our members alone"
    published = {metric: np.full(len(test), value) for metric, value in PUBLISHED.items()}
    beside("SASRec", published, {}, source=source)
    for name in SASREC:
        beside(f"SASRec, our preset {name}", figures[name], {}, fit_s=table[name]["fit_s"])
    budget_s = 60.0 if args.quick else args.peer_s
    try:
        lists, facts = peer_lists(folder, learned, tuning, test, budget_s, args.threads)
    except (PeerMissing, PeerFailed) as reason:
        skipped(NAME, "SASRec", str(reason))
        return
    theirs = full_figures(lists, test)
    more = {"fit_s": round(facts["fit_s"]), "trained_s": round(facts["trained_s"]), "epochs": facts["epochs"]}
    beside("SASRec, RecBole's", theirs, {"recbole": facts["version"]}, **more)


def questions(count: int) -> tuple[TrainingSet, evaluate.Cases, evaluate.Cases]:
    """What is learned, `TUNING` members asked for their second-to-last event, `count` for their last.

    A member with a single event is learned from alone; of one with two, the first.
    """
    read = read_sequences(DATA)
    watched = replace(read, time=read.time * DAY)
    last = evaluate.leave_one_out(watched, least=3)
    before = evaluate.leave_one_out(last.train)
    learned = TrainingSet(interactions=before.train, catalogue=bare_catalogue(watched.title_ids))
    return learned, some(evaluate.cases(before), TUNING, seed=1), some(evaluate.cases(last), count, seed=0)


def some(cases: evaluate.Cases, count: int, *, seed: int) -> evaluate.Cases:
    """At most `count` cases, drawn."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(cases))[:count])
    return replace(
        cases,
        members=cases.members[rows],
        query=evaluate.subset(cases.query, rows),
        relevant=[cases.relevant[row] for row in rows],
        trained=cases.trained[rows],
    )


def fitted(folder: Path, entry: Entry, learned: TrainingSet, quick: bool) -> tuple[Model, float]:
    """The model, from the folder where it lies there; and the seconds its fit took, all parts of it."""
    spec = discover()[entry.model]
    settings = {**entry.settings, **(entry.quick if quick else {})}
    name = "-".join([entry.model, entry.preset, *(f"{key}={settings[key]}" for key in sorted(settings))])
    kept = folder / name
    marker, spent = kept / "fit_s.json", folder / f"{name}.spent.json"
    if marker.exists():
        return spec.model.load(kept), json.loads(marker.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    before = json.loads(spent.read_text()) if spent.exists() else 0.0
    begun = time.perf_counter()

    def note(*progress: object) -> None:
        spent.write_text(json.dumps(before + time.perf_counter() - begun))

    model = spec.model(configured(entry.model, entry.preset, settings))
    with FitCheckpoints(str(folder / "parts"), name, every=EVERY, writes=True) as checkpoints:
        model.fit(learned, seed=0, checkpoints=checkpoints, progress=note)
        fit_s = before + time.perf_counter() - begun
        kept.mkdir(exist_ok=True)
        model.save(kept)
        marker.write_text(json.dumps(fit_s))
        checkpoints.forget()
        spent.unlink(missing_ok=True)
    return model, fit_s


def weigh(members: Mapping[str, Model], tuning: evaluate.Cases) -> Ensemble:
    """The ensemble of fitted members with weights learned from `tuning`."""
    spec = discover()["ensemble"]
    holdout = Holdout(
        inner=np.zeros(0, dtype=bool),
        query=tuning.query,
        answers=list(tuning.relevant),
        members=tuning.members,
    )
    return fit_ensemble(members, holdout, config=spec.presets["default"], seed=0)


def judge(model: Model, test: evaluate.Cases, among: evaluate.Positions) -> Figures:
    """Every metric, per member."""
    lists = evaluate.rank(model.score, test.query, among=among)
    sampled = evaluate.accuracy(lists, test.relevant, test.titles)
    return {
        "ndcg@10 sampled": sampled["ndcg@10"],
        "hit@10 sampled": sampled["hit@10"],
        **full_figures(evaluate.rank(model.score, test.query), test),
    }


def full_figures(lists: evaluate.Positions, test: evaluate.Cases) -> Figures:
    """Of lists of all unseen titles, per member."""
    found = evaluate.accuracy(lists, test.relevant, test.titles)
    return {f"{metric} full": found[metric] for metric in ("ndcg@10", "recall@10", "ndcg@20")}


def peer_lists(
    folder: Path,
    learned: TrainingSet,
    tuning: evaluate.Cases,
    test: evaluate.Cases,
    budget_s: float,
    threads: int,
) -> tuple[npt.NDArray[np.int32], dict[str, Any]]:
    """What RecBole's SASRec ranks first for each tested member, after the epoch that is best for `tuning`.

    Raises:
        PeerMissing: it cannot be installed.
        PeerFailed: it gave no answer.
    """
    kept, facts = folder / f"peer-{budget_s:.0f}.npy", folder / f"peer-{budget_s:.0f}.json"
    if not facts.exists():
        python = peer_venv("recbole", REQUIREMENTS["recbole"])
        with tempfile.TemporaryDirectory(prefix=f"matinee-{NAME}-") as scratch:
            both(learned, tuning, test).task(answers=True).write(f"{scratch}/task.npz")
            request = {
                "task": f"{scratch}/task.npz",
                "out": str(kept.resolve()),
                "checkpoint": str((folder / "peer.pt").resolve()),
                "model": "SASRec",
                "config": PEER,
                "seed": 0,
                "limits": {"epochs": 10_000, "budget_s": budget_s},
                "threads": threads,
            }
            found = run_peer(
                python,
                "recommend_recbole",
                request,
                cores=threads,
                timeout_s=2 * budget_s + 300,
                environment={"OMP_NUM_THREADS": str(threads)},
            )
        facts.write_text(json.dumps(found))
    return np.load(kept)[len(tuning) :], json.loads(facts.read_text())


def both(learned: TrainingSet, tuning: evaluate.Cases, test: evaluate.Cases) -> Question:
    """The tuning cases with their answers, then the tested ones without."""
    first, second = tuning.query, test.query
    return Question(
        learned=learned,
        query=Query(
            histories=[*first.histories, *second.histories],
            times=[*first.times, *second.times],
            now=np.concatenate([first.now, second.now]),
        ),
        members=np.concatenate([tuning.members, test.members]),
        relevant=[*tuning.relevant, *[np.zeros(0, np.int32)] * len(test)],
    )


if __name__ == "__main__":
    main()
