"""Rollouts end to end in the simulated service: the real recommender, split, logs, broker and controller.

Three candidates in turn, against whatever is the champion then. "better": cf against popularity; it is
promoted. "shuffled": cf trained on interactions whose titles were dealt anew. "slow": the champion's own
model, 80 ms later. Both are rolled back. Members come from `sources.world`, see what the recommender gives
and react; their events go to the broker like an application's. Only the plan's times are compressed.

Afterwards the books are checked (`rollout_books`): each answer given has exactly one exposure, of the cell
and version that the rows of the split imply at that moment; no member left a cell of a rollout; members fell
on both sides alike.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.common import arguments
from benchmarks.rollout_books import FOLLOWED_S, SURFACE, Given, back_within_s, books, moved
from matinee.canary.early import Limit
from matinee.canary.plan import Plan, Step, canary, sample_ratio
from matinee.canary.rollout import Controller, propose
from matinee.canary.store import Rollout, Rollouts
from matinee.config import Settings, load_settings
from matinee.events.broker import LocalBroker
from matinee.events.encode import encode
from matinee.events.kafka import EventProducer, ensure_topics
from matinee.features.history import History
from matinee.features.store import FeatureStore
from matinee.features.titles import genres_of
from matinee.features.transforms import VIEWS, Genres
from matinee.models import discover
from matinee.models.base import Model, Query, Scores, TrainingSet
from matinee.models.bundle import save_bundle
from matinee.registry.mlflow import CHAMPION, Registry
from matinee.schema import WATCH_TYPES, Interactions, Ranking
from matinee.serving import versions
from matinee.serving.exposures import ExposureLog
from matinee.serving.recommender import Recommender, Request
from matinee.serving.versions import Live
from matinee.sources.world import World, WorldConfig

WORLD = WorldConfig(
    members=800,
    titles=500,
    cold_share=0.0,
    child_share=0.0,
    page_size=10,
    sessions_per_week=14.0,
    mainstream=0.1,
    incumbent_skill=0.8,
)
"""Members of strong tastes of their own, who come often: a model that knows them is far above popularity."""

HISTORY_DAYS = 20
SLOW_S = 0.08
PAGE = 10
MEMBER_VIEWS = ("member_activity", "member_watched", "member_affinity")
LONGEST_S = 120.0
BETTER, SHUFFLED, SLOW = "2", "3", "4"
"""Versions; "1" is popularity, the first champion."""


def plan() -> Plan:
    """The preset "canary" with its times in seconds, and slack for the latency of a shared machine.

    Latency is left to its limit: another kind of model takes another time, and varies otherwise.
    """
    preset = canary()
    judged = [metric for metric in preset.judge["metrics"] if metric["groups"] != ["latency"]]
    return preset.model_copy(
        update={
            "name": "world",
            "steps": (
                Step(share=0.1, least_s=4, least_exposures=100),
                Step(share=0.25, least_s=4, least_exposures=200),
                Step(share=0.5, least_s=5, least_exposures=600),
            ),
            "judge": {**preset.judge, "metrics": judged},
            "limits": (
                Limit(metric="play_rate", kind="rate", harm="decrease", tolerance=0.02),
                Limit(metric="watch_s", kind="mean", harm="decrease", tolerance=0.02),
                Limit(metric="cold_rate", kind="rate", harm="increase", tolerance=0.1),
                Limit(metric="latency_mean_ms", kind="mean", harm="increase", tolerance=4.0),
            ),
            "interval_s": 1.0,
            "settle_s": 3.0,
            "max_s": LONGEST_S,
        }
    )


class Slow(Model):
    """A model that answers `SLOW_S` later."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def fit(self, data: TrainingSet, *, seed: int, **given: Any) -> None:
        self._model.fit(data, seed=seed)

    def score(self, query: Query) -> Scores:
        time.sleep(SLOW_S)
        return self._model.score(query)

    def save(self, folder: Path) -> None:
        self._model.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Slow:
        raise NotImplementedError("it wraps a model that was loaded")


class Service:
    """The simulated members before the real platform: pages asked for, events sent, everything noted.

    Args:
        settings: of a home that `prepare` filled.
        world: as `prepare` left it.
        history: everyone's watches so far.
        bootstrap: host:port of the broker.
    """

    def __init__(self, settings: Settings, world: World, history: History, bootstrap: str) -> None:
        self.given: list[Given] = []
        self._settings = settings
        self._world = world
        self._history = history
        self._store = FeatureStore(settings)
        self._genres = genres_of(world.catalogue)
        self._producer = EventProducer(settings.kafka, bootstrap)
        self._exposures = ExposureLog(self._producer, settings.kafka.exposures_topic)
        self._recommender = Recommender(settings, self._exposures)
        self._recommender.start()

    def pass_time(self) -> None:
        """Six hours of the world: members come, are answered and react; their features follow."""
        events = self._world.step(self._page, k=PAGE)
        if not events.num_rows:
            return
        topic = self._settings.kafka.events_topic
        self._producer.send_many(topic, events["member_id"].to_pylist(), encode(events))
        put_features(self._store, self._history, events, self._genres)

    def close(self) -> None:
        """Let everything be delivered."""
        self._producer.flush(10)
        self._recommender.close()
        self._exposures.close()
        self._producer.close()

    def _page(self, member_id: str, k: int, context: Mapping[str, object]) -> Ranking:
        at, start = time.time_ns() // 1000, time.perf_counter()
        answer = self._recommender.recommend(Request(member_id=member_id, k=k, surface=SURFACE))
        self._exposures.put(answer, latency_ms=(time.perf_counter() - start) * 1e3)
        ranking = answer.ranking
        self.given.append(
            Given(
                request_id=ranking.request_id,
                member_id=member_id,
                version=ranking.model_version.rpartition("/")[2],
                cell=ranking.cell,
                at=at,
                done=time.time_ns() // 1000,
            )
        )
        return ranking


def prepare(settings: Settings, *, seed: int) -> tuple[World, History]:
    """Fill a home: the catalogue, everyone's features, and the four versions."""
    world = World(WORLD, seed=seed)
    events = world.history(HISTORY_DAYS).events
    world.catalogue.write(settings.paths.catalogue)
    store = FeatureStore(settings)
    store.apply()
    history = History("member_id")
    put_features(store, history, events, genres_of(world.catalogue))
    watched = interactions(world, events)
    dealt = np.random.default_rng(seed).permutation(watched.title)
    shuffled = replace(watched, title=dealt)
    registry, specs = Registry(settings), discover()
    for name, data in (("popularity", watched), ("cf", watched), ("cf", shuffled), ("cf", watched)):
        model = specs[name].model(specs[name].presets["default"])
        model.fit(TrainingSet(interactions=data, catalogue=world.catalogue), seed=seed)
        with tempfile.TemporaryDirectory() as draft, registry.run(name, config={}) as run:
            save_bundle(Path(draft), model, name=name, catalogue=world.catalogue, extra={})
            registry.register(settings.serving.model, Path(draft), run_id=run.run_id, metrics={})
    registry.alias(settings.serving.model, CHAMPION, "1")
    return world, history


def put_features(store: FeatureStore, history: History, events: pa.Table, genres: Genres) -> None:
    """Take events into the history, and their members' rows into the online store."""
    for name in ("partition", "offset"):
        kind = pa.int32() if name == "partition" else pa.int64()
        events = events.append_column(name, pa.array(np.arange(len(events)), kind))
    added = history.add(events)
    for name in MEMBER_VIEWS:
        rows = history.latest(VIEWS[name], added.touched(VIEWS[name]), genres)
        if rows.num_rows:
            store.write_online(name, rows)


def interactions(world: World, events: pa.Table) -> Interactions:
    """The watches of the events, in time order."""
    watched = events.filter(pa.compute.is_in(events["type"], pa.array([str(kind) for kind in WATCH_TYPES])))
    watched = watched.sort_by([("event_time", "ascending")])
    member_ids = sorted(set(watched["member_id"].to_pylist()))
    title_ids = world.catalogue.title_ids
    places = [
        pa.compute.index_in(watched[name], pa.array(ids)).to_numpy().astype(np.int32)
        for name, ids in (("member_id", member_ids), ("title_id", title_ids))
    ]
    return Interactions(
        member_ids=member_ids,
        title_ids=title_ids,
        member=places[0],
        title=places[1],
        time=watched["event_time"].cast(pa.int64()).to_numpy(),
        value=np.full(len(watched), np.nan, np.float32),
    )


@contextmanager
def slowed(version: str) -> Iterator[None]:
    """A version that loads meanwhile answers later."""
    load = versions.load_live

    def late(registry: Registry, model: str, wanted: str, **given: Any) -> Live:
        live = load(registry, model, wanted, **given)
        if wanted != version:
            return live
        return replace(live, bundle=replace(live.bundle, model=Slow(live.bundle.model)))

    versions.load_live = late
    try:
        yield
    finally:
        versions.load_live = load


def roll_out(settings: Settings, service: Service, candidate: str) -> Rollout:
    """Let time pass until the candidate's rollout is over, and somewhat longer."""
    rollouts = Rollouts(settings)
    asked = propose(
        settings,
        model=settings.serving.model,
        candidate=candidate,
        plan=plan(),
        surface=SURFACE,
        who="benchmark",
        why=f"try version {candidate}",
    )
    deadline = time.monotonic() + LONGEST_S + 10
    while rollouts.get(asked.id).live and time.monotonic() < deadline:
        service.pass_time()
    over = time.monotonic() + FOLLOWED_S
    while time.monotonic() < over:
        service.pass_time()
    found = rollouts.get(asked.id)
    rollouts.close()
    return found


@dataclass(frozen=True, kw_only=True)
class Line:
    """What became of one candidate."""

    candidate: str
    action: str
    reason: str
    seconds: float
    steps: int
    effect_s: float
    members: tuple[int, int]
    ratio: str
    broken: int


def run(home: Path, *, seed: int = 0) -> tuple[list[Line], dict[str, int], str]:
    """Every candidate in turn; returns a line for each, the books, and the champion at the end."""
    settings = load_settings({"home": str(home), "seed": seed}, environment={})
    world, history = prepare(settings, seed=seed)
    lines = []
    with LocalBroker(home / "broker.log") as broker, slowed(SLOW):
        ensure_topics(settings.kafka, broker.bootstrap)
        controller = Controller(settings, broker.bootstrap)
        service = Service(settings, world, history, broker.bootstrap)
        for name, candidate in (("better", BETTER), ("shuffled", SHUFFLED), ("slow", SLOW)):
            rollout = roll_out(settings, service, candidate)
            lines.append(_line(name, rollout, service.given))
        controller.stop()
        service.close()
        checked = books(settings, broker.bootstrap, service.given)
    return lines, checked, Registry(settings).get(settings.serving.model, CHAMPION).version


def _line(name: str, rollout: Rollout, given: Sequence[Given]) -> Line:
    end, state = rollout.end, rollout.state
    assert end is not None, rollout
    assert state is not None
    sides = [len({answer.member_id for answer in given if answer.cell == cell}) for cell in rollout.cells]
    return Line(
        candidate=name,
        action=end.action,
        reason=end.reason,
        seconds=(end.time - state.began) / 1e6,
        steps=state.step + 1,
        effect_s=back_within_s(rollout, given),
        members=(sides[0], sides[1]),
        ratio=sample_ratio(*sides, alpha=rollout.plan.ratio_alpha).action,
        broken=moved(rollout, given),
    )


def main() -> None:
    """Print a table, and the same as JSON lines."""
    arguments(__doc__)
    with tempfile.TemporaryDirectory() as home:
        lines, checked, champion = run(Path(home))
    print("candidate  decision    after s step in effect s   members ratio")
    for line in lines:
        members = "/".join(map(str, line.members))
        print(
            f"{line.candidate:10} {line.action:10} {line.seconds:8.1f} {line.steps:4d} {line.effect_s:11.2f} "
            f"{members:>9} {line.ratio}  {line.reason}"
        )
    print(f"champion at the end: {champion}")
    for line in lines:
        print(json.dumps({"name": "rollout_world", **vars(line)}))
    print(json.dumps({"name": "rollout_world.books", **checked}))


if __name__ == "__main__":
    main()
