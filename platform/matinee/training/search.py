"""Tuning: Ray Tune searches a model's space, judged on a hold-out of what every protocol trains on.

A trial is fitted on the inner part of that hold-out and judged by NDCG@20 over all titles; what a protocol
tests takes no part. Points are proposed by a tree-structured Parzen estimator (Bergstra et al. 2011, Optuna
through Ray Tune), the base config first. Trials are given up by asynchronous successive halving (Li et al.
2020): at each rung those below the median of what came as far. The study's journal is the only state: a
command that was killed, or is given a larger budget, replays it into searcher and scheduler and goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from matinee.config import Settings
from matinee.errors import InvalidInput, MatineeError, Unavailable
from matinee.models import discover
from matinee.models.base import ModelSpec
from matinee.models.space import Choice, Dimension, Whole, nearest
from matinee.registry import lineage
from matinee.training import pipeline, plots, tuned
from matinee.training.budget import Budget, Left, left
from matinee.training.loop import Moved, scratch
from matinee.training.rehearsal import HALVING, METRIC, RUNGS, Rehearsal, attempt, rehearse
from matinee.training.study import WHOLE, Study, Trial, best, opened, unfinished

RETRIES = 2
"""New starts of a trial whose process or node was lost."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuningReport:
    """What a study found so far.

    Args:
        study: its name; the same command goes on with it.
        model: the model's name.
        best: values by field of the best finished trial.
        config: the whole config with these.
        value: its NDCG@20 on the hold-out.
        base_value: that of the config it began with; None where it did not finish.
        trials: of all sessions, the best first: id, end, figure, percent, seconds, point.
        spent_s: seconds of searching over all sessions.
        searched: how much that was, in words.
        run_id: MLflow's.
        applied: file of the preset "tuned", where it was written.
    """

    study: str
    model: str
    best: Mapping[str, Any]
    config: Mapping[str, Any]
    value: float
    base_value: float | None
    trials: Sequence[Mapping[str, Any]]
    spent_s: float
    searched: str
    run_id: str
    applied: str | None


def tune(
    settings: Settings,
    model: str,
    budget: Budget,
    *,
    name: str | None = None,
    apply: bool = False,
    progress: Moved | None = None,
) -> TuningReport:
    """Search a model's space until the budget of its study is spent; a study of this name goes on.

    Needs a connected Ray cluster, events in the lake and a feature build in the offline store. The base
    config is that of the preset `training.preset`.

    Args:
        name: of the study; None: made of the model and everything that trials have in common.
        apply: keep the best config as the model's preset "tuned".

    Raises:
        InvalidInput: no such model, a name that cannot be a folder's, or a study of other data.
        NotFound: there is no catalogue or no feature build.
        Unavailable: another process works on the study, or the budget ended before any trial.
        MatineeError: every trial failed; names the first cause.
    """
    from matinee.registry.mlflow import Registry

    check(model, name)
    specs = discover()
    spec = specs[model]
    configs = pipeline.presets(settings, specs, settings.training.preset)
    base = configs[model]
    material = pipeline.read(settings)
    pins = {
        "model": model,
        "seed": settings.seed,
        "data": material.snapshot.digest,
        "configs": {each: dataclasses.asdict(configs[each]) for each in (model, *spec.members)},
        "space": {each: repr(dimension) for each, dimension in spec.space.items()},
    }
    digest = hashlib.sha256(json.dumps(pins, sort_keys=True).encode()).hexdigest()
    tags = {
        "data_snapshot": material.snapshot.name,
        "code_version": lineage.code_version(),
        "hardware": lineage.hardware(),
    }
    folder = settings.paths.tuning / (name or f"{model}-{digest[:10]}")
    registry = Registry(settings)
    with (
        opened(folder, pins) as study,
        registry.run(f"tune-{model}", config=pins, tags=tags, key=f"study {study.id}") as run,
    ):

        def record(trial: Trial) -> None:
            _record(registry, run.run_id, trial)

        again = unfinished(list(study.trials.values()))
        for trial in list(study.trials.values()):
            if trial.end is None:
                study.end(trial.id, "lost")
            record(trial)
        if left(budget, list(study.trials.values()), study.spent_s):
            rehearsal = rehearse(settings, spec, material, configs, progress=progress)
            study.spend()
            first = again or ([] if study.trials else [nearest(spec.space, base)])
            if rest := left(budget, list(study.trials.values()), study.spent_s):
                run_trials(
                    settings, study, rest, first, rehearsal, spec, base, record=record, progress=progress
                )
        found = report(spec, base, study, budget, run.run_id)
        if apply:
            origin = {METRIC: found.value, "study": study.name, "run": run.run_id, **tags}
            found = dataclasses.replace(
                found, applied=str(tuned.write(settings, model, found.config, origin))
            )
        with scratch(settings) as drawn:
            _draw(spec, study, found, drawn)
            run.log_artifacts(drawn)
        run.log_metrics({METRIC: found.value}, step=len(study.trials))
    return found


def check(model: str, name: str | None) -> None:
    """What `tune` asks of a model's and a study's name.

    Raises:
        InvalidInput: no such model, or a name that cannot be a folder's.
    """
    if model not in discover():
        raise InvalidInput(f"model {model!r} is unknown; there are {', '.join(discover())}")
    if name is not None and not _NAME.fullmatch(name):
        raise InvalidInput(f"study name {name!r} is not accepted: use letters, digits and . _ -")


def shown(found: TuningReport, *, whole: bool = True, most: int = 10) -> dict[str, object]:
    """A report for people, or with `whole` for machines: everything."""
    everything = dataclasses.asdict(found)
    if whole:
        return everything
    rows = [
        {**row, "point": ", ".join(f"{name} {_brief(value)}" for name, value in row["point"].items())}
        for row in everything["trials"][:most]
    ]
    kept = ("study", "searched", "value", "base_value", "run_id", "applied", "best")
    return {**{name: everything[name] for name in kept}, "trials": rows}


def _brief(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def distribution(dimension: Dimension) -> Any:
    """Optuna's name for a dimension."""
    from optuna import distributions

    if isinstance(dimension, Choice):
        return distributions.CategoricalDistribution(list(dimension.values))
    if isinstance(dimension, Whole):
        return distributions.IntDistribution(dimension.low, dimension.high, log=dimension.log)
    return distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def run_trials(
    settings: Settings,
    study: Study,
    rest: Left,
    first: Sequence[Mapping[str, Any]],
    rehearsal: Rehearsal,
    spec: ModelSpec,
    base: Any,
    *,
    record: Callable[[Trial], None],
    progress: Moved | None,
) -> None:
    """Run trials on Ray Tune until the rest of the budget is spent, noting all in the study.

    Args:
        first: points to try before any that the searcher proposes.
        record: called with each trial that ended.
    """
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the newer reporter prints whatever it is told
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # an interrupt ends the command, as elsewhere
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the journal and MLflow hold the results
    import ray
    from ray import tune as ray_tune

    gpus = settings.tuning.gpus_per_trial
    if gpus and hasattr(base, "device"):
        base = dataclasses.replace(base, device="cuda")

    def trial(point: dict[str, Any], rehearsal: Rehearsal) -> None:
        def told(percent: float, value: float) -> None:
            ray_tune.report({"percent": percent, METRIC: value})

        try:
            attempt(dataclasses.replace(base, **point), spec, rehearsal, settings.seed, told)
        except Exception as failure:
            # Raised, it would be tried again as if its process had been lost.
            ray_tune.report({METRIC: math.nan, "failure": f"{type(failure).__name__}: {failure}"})

    cpus = int(ray.cluster_resources().get("CPU", 1))
    with scratch(settings) as folder:
        ray_tune.Tuner(
            ray_tune.with_resources(
                ray_tune.with_parameters(trial, rehearsal=rehearsal), {"cpu": 1, "gpu": gpus}
            ),
            tune_config=ray_tune.TuneConfig(
                search_alg=searcher(study, spec, first, settings.seed),
                scheduler=scheduler(study),
                num_samples=-1 if rest.trials is None else rest.trials,
                time_budget_s=rest.seconds,
                max_concurrent_trials=settings.tuning.concurrent or cpus,
                reuse_actors=True,
            ),
            run_config=ray_tune.RunConfig(
                name=study.name,
                storage_path=str(folder),
                failure_config=ray_tune.FailureConfig(max_failures=RETRIES),
                callbacks=[_journal(study, rest, record, progress)],
                verbose=0,
            ),
        ).fit()
    study.spend()


def searcher(study: Study, spec: ModelSpec, first: Sequence[Mapping[str, Any]], seed: int) -> Any:
    """Optuna's estimator, told what trials finished or were given up with; `first` come before its own."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = OptunaSearch(
        space={name: distribution(dimension) for name, dimension in spec.space.items()},
        metric=METRIC,
        mode="max",
        points_to_evaluate=[dict(point) for point in first],
        # A session must not draw once more what the one before it drew at random.
        sampler=optuna.samplers.TPESampler(seed=seed * 10_007 + len(study.trials), constant_liar=True),
    )
    for trial in study.trials.values():
        if trial.end in ("finished", "stopped"):
            found.add_evaluated_point(dict(trial.point), trial.reports[-1].value)
    return found


def scheduler(study: Study) -> Any:
    """Asynchronous successive halving whose rungs hold what earlier sessions' trials reached."""
    from ray.tune.schedulers import ASHAScheduler

    found = ASHAScheduler(
        time_attr="percent",
        metric=METRIC,
        mode="max",
        grace_period=RUNGS[0],
        max_t=WHOLE,
        reduction_factor=HALVING,
    )
    for trial in study.trials.values():
        if trial.end in ("finished", "stopped"):
            past = SimpleNamespace(trial_id=trial.id)
            found.on_trial_add(None, past)
            for each in trial.reports:
                found.on_trial_result(None, past, {"percent": each.percent, METRIC: each.value})
    return found


def _journal(study: Study, rest: Left, record: Callable[[Trial], None], progress: Moved | None) -> Any:
    """Ray Tune's callback that writes the study; runs in this process."""
    from ray.tune import Callback

    total = rest.trials
    begun = study.spent_s

    class Journal(Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            self._ended = 0
            self._failures: dict[str, str] = {}

        def __reduce__(self) -> Any:
            # Ray Tune pickles its callbacks for a restore of its own, which the study makes needless.
            return Callback, ()

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            study.begin(trial.trial_id, trial.config)

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            if "failure" in result:
                self._failures[trial.trial_id] = result["failure"]
            else:
                study.report(trial.trial_id, result["percent"], result[METRIC])

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            reports = study.trials[trial.trial_id].reports
            whole = bool(reports) and reports[-1].percent >= WHOLE
            failure = self._failures.get(trial.trial_id, "")
            study.end(trial.trial_id, "failed" if failure else "finished" if whole else "stopped", failure)
            self._over(trial)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            study.end(trial.trial_id, "failed", f"its process was lost {RETRIES + 1} times")
            self._over(trial)

        def _over(self, trial: Any) -> None:
            self._ended += 1
            record(study.trials[trial.trial_id])
            if progress is not None:
                done, whole = (
                    (float(self._ended), float(total))
                    if total
                    else (min(study.spent_s - begun, rest.seconds or 0), rest.seconds or 1)
                )
                leading = best(list(study.trials.values()))
                note = f", {METRIC} {leading[0].value:.4f}" if leading else ""
                progress(done, whole, f"{self._ended} trials{note}")

    return Journal()


def _record(registry: Any, parent: str, trial: Trial) -> None:
    """Keep an ended trial as a run below the study's; doing it again changes nothing."""
    if trial.end is None or trial.end == "lost":
        return
    tags = {"end": trial.end, "reason": trial.reason}
    key = f"{parent} {trial.id}"
    with registry.run(trial.id, config=trial.point, tags=tags, key=key, parent=parent) as run:
        for step, each in enumerate(trial.reports):
            run.log_metrics({METRIC: each.value, "percent": each.percent}, step=step, at=each.at)


def report(spec: ModelSpec, base: Any, study: Study, budget: Budget, run_id: str) -> TuningReport:
    """What a study found so far.

    Raises:
        Unavailable: no trial was finished.
        MatineeError: no trial was finished, and some failed.
    """
    trials = list(study.trials.values())
    ranked = best(trials)
    if not ranked:
        reasons = [trial.reason for trial in trials if trial.end == "failed"]
        if reasons:
            raise MatineeError(f"tuning {spec.name}: every trial failed, the first with {reasons[0]}")
        raise Unavailable(
            f"tuning {spec.name}: the budget ended before one trial did; the same command with a larger "
            "budget goes on"
        )
    start = nearest(spec.space, base)
    shown = ranked + [trial for trial in trials if trial not in ranked and trial.end != "lost"]
    return TuningReport(
        study=study.name,
        model=spec.name,
        best=ranked[0].point,
        config=dataclasses.asdict(dataclasses.replace(base, **ranked[0].point)),
        value=ranked[0].value or 0.0,
        base_value=next((trial.value for trial in trials if trial.point == start), None),
        trials=[
            {
                "trial": trial.id,
                "end": trial.end or "running",
                METRIC: trial.reports[-1].value if trial.reports else None,
                "percent": trial.reports[-1].percent if trial.reports else 0.0,
                "seconds": trial.seconds,
                "point": trial.point,
            }
            for trial in shown
        ],
        spent_s=study.spent_s,
        searched=left(budget, trials, study.spent_s).reason,
        run_id=run_id,
        applied=None,
    )


def _draw(spec: ModelSpec, study: Study, found: TuningReport, folder: Path) -> None:
    """Write what stands with the study's run: plots, and the findings as JSON."""
    (folder / "best.json").write_text(json.dumps(found.config, indent=1))
    (folder / "trials.json").write_text(json.dumps(list(found.trials), indent=1))
    drawn = folder / "plots"
    drawn.mkdir()
    judged = [trial for trial in study.trials.values() if trial.reports]
    plots.parallel_coordinates(
        spec.space,
        [(trial.point, trial.reports[-1].value) for trial in judged],
        drawn / "parallel_coordinates.png",
        metric="NDCG@20",
    )
    plots.learning_curves(
        [[(each.percent, each.value) for each in trial.reports] for trial in judged],
        drawn / "learning_curves.png",
        metric="NDCG@20",
    )
