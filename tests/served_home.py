"""A small data home that can be served from: a catalogue, members' online features, two versions."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from matinee.config import Settings
from matinee.schema import CATALOGUE_SCHEMA, TIMESTAMP, Catalogue, Interactions

GENRES = ("Action", "Comedy", "Drama")
MEMBERS = 40
TITLES = 60
START = 1_700_000_000_000_000
HOUR = 3_600_000_000


def catalogue() -> Catalogue:
    """Titles t0 to t59: genres in turn, the first half English, maturity 0, 7, 16, 18 or unknown in turn."""
    rows = [
        {
            "title_id": f"t{i}",
            "name": f"Title {i}",
            "genres": [GENRES[i % 3]],
            "release_date": None,
            "language": "en" if i < TITLES // 2 else "fr",
            "maturity": (0, 7, 16, 18, None)[i % 5],
            "cast": [],
            "keywords": [],
        }
        for i in range(TITLES)
    ]
    return Catalogue(table=pa.Table.from_pylist(rows, schema=CATALOGUE_SCHEMA))


def watched() -> list[list[int]]:
    """Per member m0 to m39, the titles they watched, one an hour from START; low titles more often."""
    random = np.random.default_rng(7)
    weights = 1.0 / (1 + np.arange(TITLES))
    weights /= weights.sum()
    return [random.choice(TITLES, size=10, replace=False, p=weights).tolist() for _ in range(MEMBERS)]


def interactions() -> Interactions:
    """Everyone's watches, in time order."""
    rows = [
        (hour, member, title) for member, titles in enumerate(watched()) for hour, title in enumerate(titles)
    ]
    hours, members, titles = np.array(sorted(rows)).T
    return Interactions(
        member_ids=[f"m{i}" for i in range(MEMBERS)],
        title_ids=[f"t{i}" for i in range(TITLES)],
        member=members.astype(np.int32),
        title=titles.astype(np.int32),
        time=START + hours.astype(np.int64) * HOUR,
        value=np.full(len(rows), np.nan, dtype=np.float32),
    )


def make(settings: Settings) -> None:
    """Write the home: catalogue, features and versions."""
    catalogue().write(settings.paths.catalogue)
    write_features(settings)
    register_versions(settings)


def register_versions(settings: Settings) -> None:
    """Version 1 is popularity and the champion, version 2 matrix factorisation."""
    from matinee.models import cf, popularity
    from matinee.models.base import TrainingSet
    from matinee.models.bundle import save_bundle
    from matinee.registry.mlflow import Registry

    data = TrainingSet(interactions=interactions(), catalogue=catalogue())
    registry = Registry(settings)
    for spec in (popularity.SPEC, cf.SPEC):
        model = spec.model(spec.presets["default"])
        model.fit(data, seed=0)
        folder = settings.home / f"draft-{spec.name}"
        folder.mkdir()
        save_bundle(folder, model, name=spec.name, catalogue=data.catalogue, extra={})
        with registry.run(spec.name, config={}, tags={}) as run:
            registry.register(settings.serving.model, folder, run_id=run.run_id, metrics={})
    registry.alias(settings.serving.model, "champion", "1")


def write_features(settings: Settings) -> None:
    """Put every member's rows into the online store, as the stream would.

    Members of even numbers played their last three titles: they rated the first, and watched the second for
    an hour, as long as anyone, and the last for ten minutes. Nothing is known of title t5.
    """
    from matinee.features.store import FeatureStore
    from matinee.features.transforms import MEMBER_ACTIVITY, MEMBER_AFFINITY, MEMBER_WATCHED

    store = FeatureStore(settings)
    store.apply()
    members = pa.array([f"m{i}" for i in range(MEMBERS)])
    titles = [[f"t{title}" for title in titles] for titles in watched()]
    last = START + 9 * HOUR
    time = pa.array([last] * MEMBERS, pa.int64()).cast(TIMESTAMP)
    ones = pa.array([1] * MEMBERS)
    tens = pa.array([10] * MEMBERS)
    lasts = pa.array([last] * MEMBERS)
    columns = [members, ones, tens, tens, pa.array(titles), lasts, time]
    store.write_online("member_activity", pa.table(columns, schema=MEMBER_ACTIVITY))
    times = pa.array([[START + hour * HOUR for hour in range(10)]] * MEMBERS)
    columns = [members, pa.array(titles), times, time]
    store.write_online("member_watched", pa.table(columns, schema=MEMBER_WATCHED))
    columns = [members, pa.array([list(GENRES)] * MEMBERS), pa.array([[3.0, 4.0, 3.0]] * MEMBERS), time]
    store.write_online("member_affinity", pa.table(columns, schema=MEMBER_AFFINITY))
    even = [f"m{i}" for i in range(0, MEMBERS, 2)]
    begun = [[f"t{title}" for title in titles[-3:]] for titles in watched()[::2]]
    columns = {
        "member_id": even,
        "played_title_ids": begun,
        "rated_title_ids": [titles[:1] for titles in begun],
        "stopped_title_ids": [titles[1:] + titles[1:] for titles in begun],
        "stopped_s": [[1800.0, 0.0, 1800.0, 600.0]] * len(even),
        "event_timestamp": time[: len(even)],
    }
    store.write_online("member_progress", pa.table(columns))
    titles = [f"t{i}" for i in range(TITLES) if i != 5]
    stops = {"longest_s": [3600.0] * len(titles), "stops": [9] * len(titles)}
    times = pa.array([last] * len(titles), pa.int64()).cast(TIMESTAMP)
    store.write_online("title_progress", pa.table({"title_id": titles, **stops, "event_timestamp": times}))
