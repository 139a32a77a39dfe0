"""How the time and memory of training grow with interactions, and what a second worker or a GPU saves.

Interactions are drawn: members by a lognormal count of watches, titles by popularity and the member's taste
for a genre. Each model is fitted at 1, 4 and 16 times the base by one worker and by two, through Ray as in
production; the torch models take a fixed number of passes, since only the growth is looked at. Prints one
JSON line a fit: seconds of the fit with its share of the data fetched, and peak memory of its largest
worker; with a GPU also its memory, its utilisation, and how many times one CPU worker's seconds were more.
There is no peer: the benchmarks `ials` and `time_to_recall` have those.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from benchmarks.common import ROOT, SCALE, arguments, machine
from benchmarks.plots import side_by_side
from matinee.config import Settings, Training, load_settings
from matinee.local.cluster import connect
from matinee.models import discover
from matinee.models.base import TrainingSet
from matinee.schema import CATALOGUE_SCHEMA, Catalogue, Features, Interactions
from matinee.training import loop
from matinee.training.tasks import FitTask

MODELS = ("cf", "dnn", "gnn")
PASSES: Mapping[str, Mapping[str, int]] = {"dnn": {"epochs": 1}, "gnn": {"steps": 20}}
BASE = {"interactions": 60_000, "titles": 9_000}
QUICK = {"interactions": 20_000, "titles": 2_000}
WARM_UP = 2_000
"""Interactions of a fit before the measured ones: imports and first allocations."""
GENRES = 18
WATCHES = 100
"""Mean watches of a member."""
MINUTE = 60_000_000


def drawn(interactions: int, titles: int, *, seed: int = 0) -> TrainingSet:
    """About so many interactions, each pair once, of interactions / WATCHES members."""
    generator = np.random.default_rng(seed)
    members = interactions // WATCHES
    activity = generator.lognormal(0, 1, members)
    member = generator.choice(members, 4 * interactions, p=activity / activity.sum())
    # Half of the watches are of the member's genre; within a genre popularity falls as 1 / rank.
    genre = np.where(
        generator.random(len(member)) < 0.5, member % GENRES, generator.integers(GENRES, size=len(member))
    )
    ranks = titles // GENRES
    popularity = 1 / np.arange(1, ranks + 1)
    title = genre + GENRES * generator.choice(ranks, len(member), p=popularity / popularity.sum())
    first = np.sort(np.unique(member * titles + title, return_index=True)[1])[:interactions]
    values = generator.gamma(2, 3, (len(first), 8)).astype(np.float32)
    rows = [
        {"title_id": f"t{i}", "name": f"Title {i}", "genres": [f"g{i % GENRES}"], "cast": [], "keywords": []}
        for i in range(titles)
    ]
    catalogue = Catalogue(table=pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA))
    held = Interactions(
        member_ids=[f"m{i}" for i in range(members)],
        title_ids=catalogue.title_ids,
        member=member[first].astype(np.int32),
        title=title[first].astype(np.int32),
        time=np.arange(len(first)) * MINUTE,
        value=np.full(len(first), np.nan, np.float32),
    )
    features = Features(names=[f"f{i}" for i in range(8)], values=values)
    return TrainingSet(interactions=held, catalogue=catalogue, member_features=features)


def fits(
    settings: Settings,
    model: str,
    parts: Mapping[int, TrainingSet],
    *,
    workers: int,
    device: Literal["cpu", "gpu"],
) -> list[dict[str, Any]]:
    """Fit the model on every part, smallest first, and return a line each but for the warm-up, 0."""
    spec = discover()[model]
    config = replace(spec.presets["default"], **PASSES.get(model, {}))
    tasks = {times: FitTask(spec=spec, config=config, part=f"{times}x", seed=0) for times in sorted(parts)}
    settings = settings.model_copy(update={"training": Training(workers=workers, device=device)})
    named = {f"{times}x": part for times, part in parts.items()}
    with loop.scratch(settings) as folder:
        found = loop.fit_all(settings, list(tasks.values()), named, folder=folder)
    lines = []
    for times, task in tasks.items():
        if not times:
            continue
        usage = found.usage[task.name]
        figures = {name: max(each[name] for each in usage) for name in usage[0]}
        lines.append(
            {
                "name": "training_scaling",
                "model": model,
                "device": found.device,
                "workers": len(usage),
                "times": times,
                "interactions": len(parts[times].interactions),
                **{name: float(f"{value:.4g}") for name, value in figures.items()},
                "machine": machine(),
            }
        )
    return lines


def measure(settings: Settings, parts: Mapping[int, TrainingSet]) -> list[dict[str, Any]]:
    """Every model with one worker and, where it trains data-parallel, with two; then on the GPUs."""
    import torch

    lines: list[dict[str, Any]] = []
    for model in MODELS:
        alone = _told(fits(settings, model, parts, workers=1, device="cpu"))
        lines += alone
        if not discover()[model].distributed:
            continue
        lines += _told(fits(settings, model, parts, workers=2, device="cpu"))
        slow = {line["times"]: line["seconds"] for line in alone}
        for workers in range(1, min(torch.cuda.device_count(), 2) + 1):
            found = fits(settings, model, parts, workers=workers, device="gpu")
            ratios = [float(f"{slow[line['times']] / line['seconds']:.4g}") for line in found]
            lines += _told(
                [{**line, "ratio_to_cpu": ratio} for line, ratio in zip(found, ratios, strict=True)]
            )
    return lines


def _told(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for line in lines:
        print(json.dumps(line), flush=True)
    return lines


def plot(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Seconds and peak memory by interactions, a line for each model, device and number of workers."""
    kinds = dict.fromkeys((line["model"], line["device"], line["workers"]) for line in lines)
    titles = ("seconds of a fit", "peak MiB of the largest worker")
    with side_by_side(path, *titles, across="interactions") as (seconds, memory):
        for model, device, workers in kinds:
            own = [
                line
                for line in lines
                if (line["model"], line["device"], line["workers"]) == (model, device, workers)
            ]
            style = {
                "marker": "o" if device == "cpu" else "^",
                "color": f"C{MODELS.index(model)}",
                "linestyle": "-" if workers == 1 else "--",
            }
            counts = [line["interactions"] for line in own]
            label = f"{model}, {workers} {device} worker{'s' if workers > 1 else ''}"
            seconds.plot(counts, [line["seconds"] for line in own], label=label, **style)
            memory.plot(counts, [line["peak_mib"] for line in own], **style)
        for axes in (seconds, memory):
            axes.set_xscale("log")
        seconds.set_yscale("log")
        memory.set_ylim(bottom=0)


def main() -> None:
    chosen = arguments(__doc__)
    size = QUICK if chosen.quick else BASE
    parts = {times: drawn(times * size["interactions"] or WARM_UP, size["titles"]) for times in (0, *SCALE)}
    with tempfile.TemporaryDirectory() as home:
        settings = load_settings({"home": home}, environment={})
        with connect(settings):
            lines = measure(settings, parts)
    if not chosen.quick:
        plot(lines, ROOT / "docs" / "img" / "training_scaling.png")


if __name__ == "__main__":
    main()
