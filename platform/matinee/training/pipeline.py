"""The training stage: from lake and feature store to a registered version.

Every model is evaluated under the protocols, then the members of the ensemble are fitted on everything and
registered with the combination that the per-member protocol learned. All fits are independent of each
other and go to the cluster at once; nothing is registered before everything else is done.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from matinee.config import Settings
from matinee.errors import InvalidInput
from matinee.events import lake, outcomes
from matinee.features.join import training_rows
from matinee.features.titles import read_catalogue
from matinee.models import discover
from matinee.models.base import ModelSpec, TrainingSet
from matinee.models.ensemble.holdout import inner_set, split_holdout
from matinee.models.ensemble.model import Ensemble, fit_ensemble
from matinee.registry import lineage
from matinee.registry.card import card
from matinee.schema import Catalogue, Interactions, ModelVersion
from matinee.training import evaluate, judge, plots, tuned
from matinee.training.evaluate import report
from matinee.training.facts import facts
from matinee.training.loop import Fitted, Moved, fit_all, scratch
from matinee.training.parts import protocol_set, replay_set, title_features
from matinee.training.reference import latest_features, reference
from matinee.training.snapshot import Snapshot, snapshot
from matinee.training.tasks import FitTask, identity
from matinee.training.tuned import TUNED

SPLITS: Mapping[str, Callable[[Interactions], evaluate.Split]] = {
    "per_member": evaluate.per_member,
    "global_time": evaluate.global_time,
    "leave_one_out": evaluate.leave_one_out,
}
"""By name of the fits they are made for."""

PROTOCOLS = {
    "prequential": "global_time",
    "per_member": "per_member",
    "global_time": "global_time",
    "leave_one_out": "leave_one_out",
}
"""Which fits each protocol asks."""

DEFAULT_PROTOCOLS = ("prequential", "per_member", "global_time")

EVERYTHING = "everything"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The protocols' figures.

    Args:
        models: per member: by model, each metric and its "<metric>_interval".
        models_global: global in time: by model, the same for "warm", "cold" and "all" members.
        panels: everything a report shows, prequential replay first.
        overall: by protocol and model, over all cases.
        margins: by protocol and other model, how much higher the ensemble's NDCG@20 is: [value, low, high].
        judged: by protocol, everything behind the figures.
        combined: by split, the ensemble.
        fitted: what was fitted besides.
        seconds: by step.
    """

    models: Mapping[str, Mapping[str, Any]]
    models_global: Mapping[str, Mapping[str, Mapping[str, Any]]]
    panels: report.Panels
    overall: Mapping[str, Mapping[str, report.Figures]]
    margins: Mapping[str, Mapping[str, list[float]]]
    judged: Mapping[str, judge.Judged]
    combined: Mapping[str, Ensemble]
    fitted: Fitted
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What a training stage did.

    Args:
        version: the registered version.
        models: as in `Evaluation`.
        models_global: as in `Evaluation`.
        panels: as in `Evaluation`.
        margins: as in `Evaluation`.
        weights_digest: SHA-256 over the model's files; the same data, settings and seed give the same.
        data_snapshot: of what was learned from.
        seconds: by step.
    """

    version: ModelVersion
    models: Mapping[str, Mapping[str, Any]]
    models_global: Mapping[str, Mapping[str, Mapping[str, Any]]]
    panels: report.Panels
    margins: Mapping[str, Mapping[str, list[float]]]
    weights_digest: str
    data_snapshot: str
    seconds: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a training stage reads: nothing else goes into a model."""

    snapshot: Snapshot
    catalogue: Catalogue
    everything: TrainingSet

    @property
    def interactions(self) -> Interactions:
        """All of them."""
        return self.everything.interactions


def train(
    settings: Settings, *, preset: str | None = None, start: str | None = None, progress: Moved | None = None
) -> TrainingReport:
    """Evaluate every model, fit the ensemble on everything and register it as the champion.

    Needs a connected Ray cluster, events in the lake and a feature build in the offline store.

    Args:
        preset: of the models that have one of this name; None: the setting `training.preset`.
        start: version or alias whose members the registered ones go on from. What is evaluated is fitted
            anew: an earlier version has learned from what the protocols test.

    Raises:
        InvalidInput: the preset is unknown, or the lake holds too little to learn from.
        NotFound: there is no catalogue, no feature build, or no version `start`.
        MatineeError: a model could not be fitted.
    """
    from matinee.models.bundle import save_bundle
    from matinee.registry.mlflow import CHAMPION, Registry

    begun = time.monotonic()
    chosen = preset or settings.training.preset
    specs = discover()
    configs = presets(settings, specs, chosen)
    ensemble = _ensemble(specs)
    material = read(settings)
    registry = Registry(settings)
    parent = registry.get(settings.serving.model, start) if start else None
    tags = _tags(settings, specs, material.snapshot)
    if parent is not None:
        tags["parent_version"] = parent.version
    config = {
        "preset": chosen,
        "seed": settings.seed,
        "workers": settings.training.workers,
        **{name: asdict(each) for name, each in configs.items()},
    }
    one_thread = threadpool_limits(limits=1)
    with one_thread, registry.run(f"train-{settings.serving.model}", config=config, tags=tags) as run:
        found = evaluate_models(
            settings,
            material,
            configs,
            final=True,
            start=Path(parent.path) if parent is not None else None,
            progress=progress,
        )
        for step, (protocol, rows) in enumerate(found.overall.items()):
            for name, figures in rows.items():
                values = {f"{protocol}.{name}.{metric}": one.value for metric, one in figures.items()}
                run.log_metrics(values, step=step)
        model = _final(found, ensemble)
        with scratch(settings) as draft:
            folder = draft / "version"
            folder.mkdir()
            save_bundle(
                folder,
                model,
                name=ensemble.name,
                catalogue=material.catalogue,
                extra={"data_snapshot": material.snapshot.digest, "seed": str(settings.seed)},
            )
            digest = lineage.folder_digest(folder)
            run_tags = {
                **tags,
                "weights_digest": digest,
                "preset": chosen,
                "seed": str(settings.seed),
                "device": found.fitted.device,
            }
            if chosen == TUNED:
                run_tags["tuned"] = json.dumps(tuned.origins(settings, specs))
            _describe(
                settings,
                folder,
                material,
                model,
                found,
                ensemble.name,
                run_tags,
                run.run_id,
            )
            for plot in sorted((folder / "plots").iterdir()):
                run.log_figure(plot)
            own = {protocol: models[ensemble.name] for protocol, models in found.overall.items()}
            metrics = {name: one.value for name, one in own["per_member"].items()}
            metrics |= {f"prequential.{name}": one.value for name, one in own["prequential"].items()}
            version = registry.register(
                settings.serving.model,
                folder,
                run_id=run.run_id,
                metrics=metrics,
                tags=run_tags,
                alias=CHAMPION,
            )
    if progress is not None:
        progress(1, 1, f"registered {version.name} version {version.version}")
    return TrainingReport(
        version=version,
        models=found.models,
        models_global=found.models_global,
        panels=found.panels,
        margins=found.margins,
        weights_digest=digest,
        data_snapshot=material.snapshot.name,
        seconds={**found.seconds, "all": time.monotonic() - begun},
    )


def presets(settings: Settings, specs: Mapping[str, ModelSpec], name: str) -> dict[str, Any]:
    """Each model's config of a preset; "default" for a model without one of this name.

    Raises:
        InvalidInput: no model has it.
        ConfigError: the home's preset "tuned" is of another release.
    """
    known = {preset for spec in specs.values() for preset in spec.presets}
    if settings.paths.tuned.exists():
        known.add(TUNED)
    if name not in known:
        raise InvalidInput(f"preset {name!r} is unknown; there are {', '.join(sorted(known))}")
    found = {model: spec.presets.get(name, spec.presets["default"]) for model, spec in specs.items()}
    return found | tuned.configs(settings, specs) if name == TUNED else found


def read(settings: Settings) -> Material:
    """Read lake and feature store.

    Raises:
        InvalidInput: the lake holds no watch.
        NotFound: there is no catalogue or no feature build.
    """
    catalogue = read_catalogue(settings)
    interactions = lake.read_interactions(settings.paths.events, catalogue)
    if not len(interactions):
        raise InvalidInput(f"lake {settings.paths.events} holds no watch of a title in the catalogue")
    member_features, title_values = training_rows(settings, interactions)
    told = lake.read_events(settings.paths.events, columns=outcomes.COLUMNS, types=outcomes.TYPES)
    found = outcomes.outcomes(told, catalogue, interactions.member_ids)
    return Material(
        snapshot=snapshot(settings),
        catalogue=catalogue,
        everything=TrainingSet(
            interactions=interactions,
            catalogue=catalogue,
            member_features=member_features,
            title_features=title_values,
            outcomes=found if len(found) else None,
        ),
    )


def evaluate_models(
    settings: Settings,
    material: Material,
    configs: Mapping[str, Any],
    *,
    protocols: Sequence[str] = DEFAULT_PROTOCOLS,
    final: bool = False,
    start: Path | None = None,
    progress: Moved | None = None,
) -> Evaluation:
    """Run protocols for every model, and with `final` fit the ensemble's members on everything too.

    Args:
        protocols: of `PROTOCOLS`, in the order of the report; those that share a split share its fits.
        start: folder of the version that the fits on everything go on from.
    """
    seconds: dict[str, float] = {}
    clock = time.monotonic()
    specs = discover()
    ensemble = _ensemble(specs)
    singles = [name for name, spec in specs.items() if not spec.members]
    everything, catalogue = material.everything, material.catalogue
    parts: dict[str, TrainingSet] = {}
    tested, holdouts, wanted = {}, {}, []
    for name in dict.fromkeys(PROTOCOLS[protocol] for protocol in protocols):
        split = SPLITS[name](material.interactions)
        learned, tested[name] = protocol_set(
            split, catalogue, everything.member_features, everything.outcomes
        )
        if name == PROTOCOLS["prequential"]:
            tested["prequential"] = replay_set(
                split,
                everything.member_features,
                limit=settings.training.replay_events,
                seed=settings.seed,
            )
        holdouts[name] = split_holdout(learned, seed=settings.seed)
        inner = inner_set(learned, holdouts[name])
        inner = inner_set(
            learned,
            holdouts[name],
            title_features=title_features(inner.interactions, catalogue),
        )
        parts |= {name: learned, f"{name}.inner": inner}
        wanted += [(name, single) for single in singles]
        wanted += [(f"{name}.inner", member) for member in ensemble.members]
    if final:
        parts[EVERYTHING] = everything
        wanted += [(EVERYTHING, name) for name in ensemble.members]
    tasks = [
        FitTask(
            spec=specs[name],
            config=configs[name],
            part=part,
            seed=settings.seed,
            start=start if part == EVERYTHING else None,
        )
        for part, name in sorted(wanted, key=lambda one: one[1])
    ]
    seconds["prepare"], clock = time.monotonic() - clock, time.monotonic()
    code = lineage.code_version()
    dirty = code.endswith("-dirty")  # the next run may be of other code
    run = "" if dirty else identity(tasks, parts, code, str(settings.training.workers))
    with scratch(settings, run) as folder:
        fitted = fit_all(settings, tasks, parts, folder=folder, progress=progress)
    seconds["fit"], clock = time.monotonic() - clock, time.monotonic()
    genres = evaluate.genre_matrix(catalogue)
    models, judged = {}, {}
    combined: dict[str, Ensemble] = {}
    for name, holdout in holdouts.items():
        inner_models = {member: fitted.models[f"{name}.inner.{member}"] for member in ensemble.members}
        own = {single: fitted.models[f"{name}.{single}"] for single in singles}
        combined[name] = fit_ensemble(
            inner_models, holdout, config=configs[ensemble.name], seed=settings.seed
        ).with_members({member: own[member] for member in ensemble.members})
        models[name] = {**own, ensemble.name: combined[name]}
    for protocol in protocols:
        if progress is not None:
            progress(len(tasks), len(tasks), f"evaluating {judge.TITLES[protocol]}")
        asked = models[PROTOCOLS[protocol]]
        judged[protocol] = judge.judge(asked, tested[protocol], genres)
        if protocol == "leave_one_out":
            among = evaluate.sampled_titles(tested[protocol], seed=settings.seed)
            judged["leave_one_out_sampled"] = judge.judge(asked, tested[protocol], genres, among=among)
    seed = settings.seed
    overall = {protocol: judge.overall(one, seed=seed) for protocol, one in judged.items()}
    by_warmth = judge.warmth(judged["global_time"], seed=seed) if "global_time" in judged else {}
    margins = {
        protocol: {
            other: [gap.value, gap.low, gap.high]
            for other, gap in judge.margins(one, ensemble.name, seed=seed).items()
        }
        for protocol, one in judged.items()
    }
    seconds["evaluate"] = time.monotonic() - clock
    return Evaluation(
        models={name: judge.flat(one) for name, one in overall.get("per_member", {}).items()},
        models_global={
            name: {segment: judge.flat(one) for segment, one in segments.items()}
            for name, segments in by_warmth.items()
        },
        panels=judge.panels(overall, by_warmth),
        overall=overall,
        margins=margins,
        judged=judged,
        combined=combined,
        fitted=fitted,
        seconds=seconds,
    )


def _ensemble(specs: Mapping[str, ModelSpec]) -> ModelSpec:
    return next(spec for spec in specs.values() if spec.members)


def _final(found: Evaluation, ensemble: ModelSpec) -> Ensemble:
    members = {name: found.fitted.models[f"{EVERYTHING}.{name}"] for name in ensemble.members}
    return found.combined["per_member"].with_members(members)


def _tags(settings: Settings, specs: Mapping[str, ModelSpec], learned: Snapshot) -> dict[str, str]:
    services = sorted({spec.feature_service for spec in specs.values() if spec.feature_service})
    return {
        "data_snapshot": learned.name,
        "data_digest": learned.digest,
        "data_until": str(learned.last),
        "feature_service": ", ".join(services),
        "code_version": lineage.code_version(),
        "packages": json.dumps(lineage.package_versions()),
        "hardware": lineage.hardware(),
    }


def _describe(
    settings: Settings,
    folder: Path,
    material: Material,
    model: Ensemble,
    found: Evaluation,
    combined: str,
    tags: Mapping[str, str],
    run_id: str,
) -> None:
    """Write what stands beside the weights: reference, figures, plots and card."""
    features = latest_features(settings, material.catalogue, material.interactions)
    now = time.time_ns() // 1000
    pq.write_table(reference(model, material.interactions, features, now=now), folder / "reference.parquet")
    figures = {
        "models": found.models,
        "models_global": found.models_global,
        "margins": found.margins,
        "panels": report.to_json(found.panels),
        "usage": found.fitted.usage,
    }
    (folder / "metrics.json").write_text(json.dumps(figures, indent=1))
    drawn = folder / "plots"
    drawn.mkdir()
    report.plot(found.panels, drawn / "ndcg_at_20.png")
    own = {name: curve for name, curve in found.fitted.curves.items() if name.startswith(f"{EVERYTHING}.")}
    plots.curves(own, drawn / "loss.png")
    assert model.validation is not None  # fit_ensemble's
    learned = {
        f"weights, {segment}": ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
        for segment, weights in model.describe().items()
    }
    text = card(
        facts(
            name=settings.serving.model,
            combined=combined,
            interactions=material.interactions,
            catalogue=material.catalogue,
            snapshot=material.snapshot,
            panels=found.panels,
            judged=found.judged,
            validation=model.validation,
            training={
                "model": f"{combined} of {', '.join(_ensemble(discover()).members)}",
                "preset": tags["preset"],
                "seed": tags["seed"],
                "features": tags["feature_service"],
                "device": tags["device"],
                **learned,
            },
            lineage={
                "run": run_id,
                "code": tags["code_version"],
                "packages": tags["packages"],
                "hardware": tags["hardware"],
                "weights": tags["weights_digest"],
                **({"went on from version": tags["parent_version"]} if "parent_version" in tags else {}),
            },
            seed=settings.seed,
        )
    )
    (folder / "card.md").write_text(text)
