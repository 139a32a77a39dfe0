"""A data home of any size that can be served from: a drawn catalogue, members with features, one ensemble.

What a request costs depends on the shapes alone, so members' tastes are drawn and training is cut short;
the models keep the widths that they ship with.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from matinee.config import Settings, load_settings
from matinee.models.base import Model, ModelSpec, Query, TrainingSet
from matinee.models.ensemble.model import Ensemble
from matinee.models.ensemble.weights import SEGMENTS
from matinee.schema import CATALOGUE_SCHEMA, TIMESTAMP, Catalogue, Interactions

GENRES = tuple(f"Genre {i}" for i in range(18))
MATURITY = (0, 7, 12, 16, 18)
START = 1_700_000_000_000_000
HOUR = 3_600_000_000
LEARNERS = 2_000
"""Members that the models learn from."""
SHORT: Mapping[str, Mapping[str, Any]] = {"dnn": {"epochs": 1}, "gnn": {"steps": 5}}
"""Less training than by default, in the same shapes."""
FIRST_DAY = 12_000
"""Days since the epoch of the earliest release."""
MAKING, MADE = "making", "made"
"""Files of a home, with its sizes: the first while it is made, the second once it is whole."""


def catalogue(titles: int) -> Catalogue:
    """Titles t0, t1, ...: each with one to three genres, a maturity, and people and keywords of a few."""
    draw = np.random.default_rng(0)
    people, words = max(titles // 4, 20), max(titles // 8, 20)
    rows = [
        {
            "title_id": f"t{i}",
            "name": f"Title {i}",
            "genres": [GENRES[g] for g in draw.choice(len(GENRES), draw.integers(1, 4), replace=False)],
            "release_date": int(FIRST_DAY + draw.integers(0, 7_000)),
            "language": ("en", "fr", "es", "ja")[draw.integers(4)],
            "maturity": MATURITY[draw.integers(len(MATURITY))],
            "cast": [f"Person {p}" for p in set(draw.integers(0, people, 3).tolist())],
            "keywords": [f"word {w}" for w in set(draw.integers(0, words, 4).tolist())],
        }
        for i in range(titles)
    ]
    columns = {
        field.name: pa.array([row[field.name] for row in rows]).cast(pa.int32()).cast(field.type)
        if field.name == "release_date"
        else pa.array([row[field.name] for row in rows], field.type)
        for field in CATALOGUE_SCHEMA
    }
    return Catalogue(table=pa.table(columns, schema=CATALOGUE_SCHEMA))


def histories(titles: int, members: int) -> list[list[int]]:
    """Per member 10 to 80 titles, oldest first: low positions more often."""
    draw = np.random.default_rng(1)
    cumulated = np.cumsum(1 / (np.arange(titles) + 20.0))
    found = []
    for length in draw.integers(10, 81, members).tolist():
        drawn = np.searchsorted(cumulated, draw.random(3 * length) * cumulated[-1])
        found.append(list(dict.fromkeys(np.minimum(drawn, titles - 1).tolist()))[:length])
    return found


def home(folder: Path, *, titles: int, members: int, flags: Mapping[str, object] | None = None) -> Settings:
    """The home in a folder: as an earlier run left it, else made; one that is half made is made again.

    Args:
        flags: further settings, dotted.

    Raises:
        ValueError: the folder holds a home of other sizes, or something else.
    """
    settings = load_settings({**(flags or {}), "home": str(folder)}, environment={})
    sizes = json.dumps({"titles": titles, "members": members})
    made, making = folder / MADE, folder / MAKING
    if made.exists():
        if (found := made.read_text()) != sizes:
            raise ValueError(f"data home {folder} has {found}; asked for: {sizes}. Name another folder")
        return settings
    if making.exists():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise ValueError(f"folder {folder} is neither empty nor a data home made here; name another")
    folder.mkdir(parents=True, exist_ok=True)
    making.write_text(sizes)
    make(settings, titles=titles, members=members)
    making.replace(made)
    return settings


def make(settings: Settings, *, titles: int, members: int) -> None:
    """Write the home: catalogue, the online features of members m0, m1, ... and version 1, the champion."""
    offered = catalogue(titles)
    offered.write(settings.paths.catalogue)
    watched = histories(titles, members)
    write_features(settings, watched)
    register(settings, offered, watched[:LEARNERS])


def register(settings: Settings, offered: Catalogue, watched: list[list[int]]) -> None:
    """Fit the ensemble as it ships, but shortly, and make it the champion."""
    from matinee.registry.mlflow import Registry

    folder = settings.home / "draft"
    fit(folder, training_set(offered, watched), SHORT)
    registry = Registry(settings)
    with registry.run("ensemble", config={}, tags={}) as run:
        registry.register(settings.serving.model, folder, run_id=run.run_id, metrics={})
    registry.alias(settings.serving.model, "champion", "1")


def training_set(offered: Catalogue, watched: list[list[int]]) -> TrainingSet:
    """What members m0, m1, ... watched, a title an hour from START, each member's oldest first."""
    lengths = [len(titles) for titles in watched]
    member = np.repeat(np.arange(len(watched)), lengths)
    hour = np.concatenate([np.arange(length) for length in lengths])
    order = np.lexsort((member, hour))
    interactions = Interactions(
        member_ids=[f"m{i}" for i in range(len(watched))],
        title_ids=offered.title_ids,
        member=member[order].astype(np.int32),
        title=np.concatenate(watched)[order].astype(np.int32),
        time=START + hour[order].astype(np.int64) * HOUR,
        value=np.full(len(order), np.nan, dtype=np.float32),
    )
    return TrainingSet(interactions=interactions, catalogue=offered)


def fit(folder: Path, data: TrainingSet, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Fit the ensemble's members, and save it into a new folder with its signals weighing alike.

    Args:
        changes: to the members' default configs, by name.
    """
    from matinee.models import discover
    from matinee.models.bundle import save_bundle

    specs = discover()
    spec = specs["ensemble"]
    members = {
        name: specs[name].model(replace(specs[name].presets["default"], **changes.get(name, {})))
        for name in spec.members
    }
    for each in members.values():
        each.fit(data, seed=0)
    folder.mkdir(parents=True)
    save_bundle(folder, weighed(spec, members), name="ensemble", catalogue=data.catalogue, extra={})


def weighed(spec: ModelSpec, members: Mapping[str, Model]) -> Ensemble:
    """The ensemble with every signal weighing alike: one that weighs nothing would not be asked."""
    found = Ensemble(spec.presets["default"]).with_members(members)
    nobody = Query(histories=[np.zeros(0, np.int32)], times=[np.zeros(0, np.int64)], now=np.array([START]))
    found._signals = [(name, signal) for name, model in members.items() for signal in model.signals(nobody)]
    found._weights = np.full((len(SEGMENTS), len(found._signals)), 1 / len(found._signals))
    found._calibration = np.ones((len(SEGMENTS), 2))
    return found


def write_features(settings: Settings, watched: list[list[int]]) -> None:
    """Put every member's rows into the online store, as the stream would."""
    from matinee.features.store import FeatureStore
    from matinee.features.transforms import MEMBER_ACTIVITY, MEMBER_AFFINITY, MEMBER_WATCHED

    store = FeatureStore(settings)
    store.apply()
    ids = pa.array([f"m{i}" for i in range(len(watched))])
    lengths = [len(titles) for titles in watched]
    names = [[f"t{title}" for title in titles] for titles in watched]
    lasts = pa.array([START + length * HOUR for length in lengths], pa.int64())
    time = lasts.cast(TIMESTAMP)
    counts = pa.array(lengths)
    ones = pa.array([1] * len(watched))
    columns = [ids, ones, counts, counts, pa.array([each[-10:] for each in names]), lasts, time]
    store.write_online("member_activity", pa.table(columns, schema=MEMBER_ACTIVITY))
    times = pa.array([[START + hour * HOUR for hour in range(length)] for length in lengths])
    columns = [ids, pa.array(names), times, time]
    store.write_online("member_watched", pa.table(columns, schema=MEMBER_WATCHED))
    genres = pa.array([list(GENRES[:6])] * len(watched))
    columns = [ids, genres, pa.array([[3.0, 4.0, 3.0, 2.0, 1.0, 1.0]] * len(watched)), time]
    store.write_online("member_affinity", pa.table(columns, schema=MEMBER_AFFINITY))
