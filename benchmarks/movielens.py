"""The ensemble beside every single model, ours and the peers', on MovieLens: NDCG@20 of full rankings.

Every model is tuned with as many trials of as many seconds (`Peer.times` as many for a slow one), on a
hold-out of the training data that is made as the test is; then it is fitted on all training data, once a
seed. Lists are kept in a folder: a run that was cut off goes on there. What is kept doesn't know our code:
take another folder after a change of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
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
from benchmarks.peers.recommend import LENGTH, accuracy
from benchmarks.questions import PROTOCOLS, Question, load
from benchmarks.spaces import OURS, PEERS, Config, Peer, configured, ours, trials
from matinee.errors import NotFound, Unavailable
from matinee.models import discover
from matinee.models.base import Model, TrainingSet
from matinee.models.ensemble.holdout import inner_set, split_holdout
from matinee.models.ensemble.model import fit_ensemble
from matinee.training import evaluate
from matinee.training.parts import title_features

NAME = "movielens"
OWN = "matinee"
ENSEMBLE = "ensemble"
METRIC = "ndcg@20"
DATA = ("movielens-100k", "movielens-latest-small")
START_S = 120.0
"""Longest time that a peer's script takes beside its training."""
EPOCHS = 10_000
"""More than a trial's seconds allow."""
FINAL = 4
"""Budgets of a trial that a fit after tuning may take."""

Lists = npt.NDArray[np.int32]


class _OutOfTime(Exception):
    """A fit of ours took longer than it may."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A model's lists of a question, int32 [q, LENGTH], and what is known of the fit."""

    lists: Lists
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """One fit that is wanted; by epoch, of at most `epochs`; of at most `budget_s` seconds of training."""

    config: Config
    seed: int = 0
    threads: int
    budget_s: float
    epochs: int = EPOCHS


@dataclass(frozen=True, kw_only=True)
class Side:
    """A model in the comparison.

    Args:
        answer: fits on a question's training data and ranks; with `answers`, a script may choose its epoch
            by the question's answers; at `state` it may keep how far it is.
    """

    name: str
    maker: str
    published: Config
    space: Mapping[str, Any]
    times: int = 1
    answer: Callable[[Question, Fit, bool, Path], Answer]


def main() -> None:
    args = arguments(__doc__, _declare)
    if args.quick:
        args.data, args.protocol, args.trials, args.trial_s, args.seeds = DATA[:1], ["per_member"], 2, 15.0, 1
    with pinned(args.threads), threadpool_limits(args.threads):
        import torch

        torch.set_num_threads(args.threads)
        for name in args.data:
            try:
                everything = load(name, Path(args.cache) / "home")
            except (NotFound, Unavailable) as reason:
                skipped(NAME, name, str(reason))
                continue
            for protocol in args.protocol:
                run(name, protocol, everything, args)


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache", default=str(ROOT / ".benchmarks" / NAME), help="where lists are kept")
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--protocol", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS))
    parser.add_argument("--trials", type=int, default=5, help="of each model")
    parser.add_argument("--trial-s", type=float, default=180.0, help="most seconds of training in a trial")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--without", nargs="*", default=[], help="models to leave out, by name")


def run(data: str, protocol: str, everything: TrainingSet, args: argparse.Namespace) -> None:
    """Tune, fit and judge every model on one question; print the table and the comparison."""
    question = PROTOCOLS[protocol](everything)
    inner = PROTOCOLS[protocol](question.learned)
    folder = Path(args.cache) / f"{data}-{protocol}"
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, dict[str, npt.NDArray[np.float64]]] = {}
    table: dict[str, dict[str, Any]] = {}

    def judge(side: Side, fit: Fit, tuned: float | None) -> None:
        seeds = [replace(fit, seed=seed) for seed in range(args.seeds)]
        answers = [kept(folder / "test", side, question, each, False) for each in seeds]
        figures = [accuracy(answer.lists, question.relevant) for answer in answers]
        values[side.name] = {key: np.mean([each[key] for each in figures], axis=0) for key in figures[0]}
        means = {key: round(float(each.mean()), 4) for key, each in values[side.name].items()}
        facts = {key: answers[0].facts[key] for key in ("fit_s", "score_s", "version")}
        table[side.name] = {**means, **facts, "maker": side.maker, "tuned": tuned, "config": fit.config}

    for side in sides():
        if side.name in args.without:
            skipped(NAME, side.name, f"{data}, {protocol}: left out")
            continue
        try:
            fit, tuned = tune(side, inner, folder, args=args)
            judge(side, fit, tuned)
        except (PeerMissing, PeerFailed) as reason:
            skipped(NAME, side.name, f"{data}, {protocol}: {reason}")
    configs = {name: table[name]["config"] if name in table else {} for name in discover()[ENSEMBLE].members}
    combined = Side(name=ENSEMBLE, maker=OWN, published={}, space={}, answer=ensemble_answer)
    judge(combined, Fit(config=configs, threads=args.threads, budget_s=np.inf), None)
    line = {"name": f"{NAME}_models", "data": data, "protocol": protocol, "models": table}
    print(json.dumps(line), flush=True)
    best = max((name for name in values if name != ENSEMBLE), key=lambda name: table[name][METRIC])
    quality(
        name=NAME,
        peer="best_single",
        metric=METRIC,
        ours=values[ENSEMBLE][METRIC],
        theirs=values[best][METRIC],
        groups=question.members,
        repeats=args.seeds,
        best=best,
        sizes={
            "data": data,
            "protocol": protocol,
            "cases": len(question.query),
            "members": len(everything.interactions.member_ids),
            "titles": len(everything.catalogue),
            "interactions": len(everything.interactions),
            "trials": args.trials,
            "trial_s": args.trial_s,
            "threads": args.threads,
        },
        versions={row["maker"]: row["version"] for row in table.values() if row["maker"] != OWN},
    )


def sides() -> list[Side]:
    """Everyone's single models."""
    own = [
        Side(
            name=name,
            maker=OWN,
            published={},
            space=OURS.get(model, {}) if preset == "default" else {},
            answer=partial(own_answer, model, preset),
        )
        for name, (model, preset) in ours().items()
    ]
    return own + [
        Side(
            name=peer.name,
            maker=peer.venv,
            published=peer.published,
            space=peer.space,
            times=peer.times,
            answer=partial(peer_answer, peer),
        )
        for peer in PEERS
    ]


def tune(side: Side, inner: Question, folder: Path, *, args: argparse.Namespace) -> tuple[Fit, float]:
    """The fit whose trial did best on the inner question, and its figure there.

    One that was unfinished may take no longer on all data; others FINAL times as long, as these are more.

    Raises:
        PeerFailed: every trial failed; the text is the last one's.
    """
    best, value, reason = None, -1.0, PeerFailed(f"{side.name}: no trial")
    trial_s = side.times * args.trial_s
    for config in trials(side.name, side.published, side.space, args.trials):
        fit = Fit(config=config, threads=args.threads, budget_s=trial_s)
        try:
            answer = kept(folder / "trials", side, inner, fit, True)
        except PeerFailed as failure:
            reason = failure
            continue
        found = float(accuracy(answer.lists, inner.relevant)[METRIC].mean())
        if found > value:
            epochs = int(answer.facts.get("epochs", EPOCHS))
            more = 1 if answer.facts.get("unfinished") else FINAL
            best, value = replace(fit, budget_s=more * trial_s, epochs=epochs), found
    if best is None:
        raise reason
    return best, round(value, 4)


def kept(folder: Path, side: Side, question: Question, fit: Fit, answers: bool) -> Answer:
    """The side's answer: from the folder where it lies there, else made and written."""
    wanted = json.dumps([side.name, asdict(fit), answers], sort_keys=True, default=str)
    name = "".join(letter if letter.isalnum() else "_" for letter in side.name)
    path = folder / f"{name}-{hashlib.sha256(wanted.encode()).hexdigest()[:12]}.npz"
    if path.exists():
        with np.load(path) as stored:
            return Answer(lists=stored["lists"], facts=json.loads(str(stored["facts"])))
    folder.mkdir(parents=True, exist_ok=True)
    state = path.with_suffix(".state")
    answer = side.answer(question, fit, answers, state)
    draft = path.with_suffix(".draft.npz")
    np.savez(draft, lists=answer.lists, facts=json.dumps({**answer.facts, "wanted": wanted}))
    draft.replace(path)
    state.unlink(missing_ok=True)
    return answer


def peer_answer(peer: Peer, question: Question, fit: Fit, answers: bool, state: Path) -> Answer:
    """A peer's script, in its venv."""
    python = peer_venv(peer.venv, REQUIREMENTS[peer.venv])
    with tempfile.TemporaryDirectory(prefix="matinee-movielens-") as scratch:
        task, out = f"{scratch}/task.npz", f"{scratch}/lists.npy"
        question.task(answers=answers and peer.by_epoch).write(task)
        request = {
            "task": task,
            "out": out,
            "checkpoint": str(state.resolve()),
            "model": peer.model,
            "config": fit.config,
            "seed": fit.seed,
            "limits": {"epochs": fit.epochs, "budget_s": fit.budget_s},
            "threads": fit.threads,
        }
        limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "LK_NUM_THREADS")
        facts = run_peer(
            python,
            f"recommend_{peer.venv}",
            request,
            cores=fit.threads,
            timeout_s=1.5 * fit.budget_s + START_S,
            environment=dict.fromkeys(limits, str(fit.threads)),
        )
        return Answer(lists=np.load(out), facts=facts)


def own_answer(model: str, preset: str, question: Question, fit: Fit, answers: bool, state: Path) -> Answer:
    """One of our models, in this process."""
    fitted, facts = fit_own(model, preset, fit, question.learned)
    return _ranked(fitted, question, facts)


def ensemble_answer(question: Question, fit: Fit, answers: bool, state: Path) -> Answer:
    """The ensemble as the training stage makes it, its members with the settings that `fit` holds by name."""
    begun = time.perf_counter()
    spec, learned = discover()[ENSEMBLE], question.learned
    holdout = split_holdout(learned, seed=fit.seed)
    known = inner_set(learned, holdout).interactions
    inner = inner_set(learned, holdout, title_features=title_features(known, learned.catalogue))

    def members(data: TrainingSet) -> dict[str, Model]:
        each = {name: replace(fit, config=fit.config[name]) for name in spec.members}
        return {name: fit_own(name, "default", one, data)[0] for name, one in each.items()}

    weighed = fit_ensemble(members(inner), holdout, config=spec.presets["default"], seed=fit.seed)
    whole = weighed.with_members(members(learned))
    return _ranked(whole, question, {"fit_s": time.perf_counter() - begun})


def fit_own(model: str, preset: str, fit: Fit, learned: TrainingSet) -> tuple[Model, dict[str, Any]]:
    """One of our models, fitted; as it stands, where its seconds were over before it was done.

    Returns:
        The model; fit_s, and `unfinished`.
    """
    begun = time.perf_counter()
    fitted = discover()[model].model(configured(model, preset, fit.config))
    unfinished = False

    def progress(step: int, steps: int, figures: Mapping[str, float]) -> None:
        if step < steps and time.perf_counter() > begun + fit.budget_s:
            raise _OutOfTime

    try:
        fitted.fit(learned, seed=fit.seed, progress=progress)
    except _OutOfTime:
        unfinished = True
    return fitted, {"fit_s": time.perf_counter() - begun, "unfinished": unfinished}


def _ranked(model: Model, question: Question, facts: Mapping[str, Any]) -> Answer:
    begun = time.perf_counter()
    lists = evaluate.rank(model.score, question.query, k=LENGTH)
    return Answer(lists=lists, facts={**facts, "score_s": time.perf_counter() - begun, "version": ""})


if __name__ == "__main__":
    main()
