"""Bring a data set into the home, send its events, and wait until the streaming features have them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from matinee.config import Settings
from matinee.errors import InvalidInput, Unavailable
from matinee.events import encode, lake
from matinee.events.kafka import EventProducer
from matinee.local.malformed import malformed
from matinee.schema import Catalogue
from matinee.sources.dataset import Dataset

TIMEOUT_S = 600.0


def bring(settings: Settings, name: str, *, declared: Path | None = None, days: int = 30) -> Dataset:
    """The named data set, with its catalogue in the home.

    Args:
        name: a MovieLens release, or "world" for history of the simulated service.
        declared: a file that declares own data (`sources.files.load_declared`); `name` is not read then.
        days: of history that the simulated service writes.

    Raises:
        NotFound: there is no such data set.
        InvalidInput: the home holds the catalogue of another data set.
    """
    from matinee.sources import files, movielens, world

    if declared is not None:
        dataset = files.load_declared(declared)
    elif name == "world":
        dataset = world.World(seed=settings.seed).history(days=days)
    else:
        movielens.get(name, settings.paths)
        dataset = movielens.load(name, settings.paths)
    path = settings.paths.catalogue
    if path.exists() and Catalogue.read(path).title_ids != dataset.catalogue.title_ids:
        raise InvalidInput(
            f"data home {settings.home} holds other titles than {dataset.name}; name another with --home"
        )
    dataset.catalogue.write(path)
    return dataset


def send(settings: Settings, bootstrap: str, dataset: Dataset, *, faults: int = 0) -> int:
    """Send the events the lake does not hold yet, in order, with `faults` malformed ones mixed in.

    Returns the number of messages sent; 0 where the lake holds every event already.

    Raises:
        Unavailable: the broker does not take them.
    """
    known = lake.read_events(settings.paths.events, columns=["event_id"])["event_id"]
    arriving = dataset.arriving(time.time_ns() // 1000)
    events = arriving.filter(pc.invert(pc.is_in(arriving["event_id"], known)))
    if events.num_rows == 0:
        return 0
    keys: list[str] = events["member_id"].to_pylist()
    payloads = encode.encode(events)
    places = np.random.default_rng(settings.seed).integers(0, len(payloads), faults)
    bad = malformed(faults, seed=settings.seed)
    for place, (key, payload) in zip(sorted(places.tolist(), reverse=True), bad, strict=True):
        keys.insert(place, key)
        payloads.insert(place, payload)
    producer = EventProducer(settings.kafka, bootstrap)
    try:
        producer.send_many(settings.kafka.events_topic, keys, payloads)
        producer.flush(60.0)
    finally:
        producer.close()
    return len(payloads)


def wait_taken(
    stream: Any, *, at_least: int, progress: Callable[[int], None] = lambda taken: None
) -> dict[str, Any]:
    """Wait until the stream has taken `at_least` more messages and committed all; returns its status.

    Args:
        stream: the supervisor's handle.
        at_least: messages taken (good, dead or duplicate) since its start that end the wait.
        progress: called with the messages taken so far.

    Raises:
        Unavailable: it stopped, or did not take them within ten minutes.
    """
    import ray

    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        status: dict[str, Any] = ray.get(stream.status.remote())
        if status.get("state") == "failed":
            raise Unavailable(f"the streaming features stopped: {status.get('reason')}")
        taken = status["events"] + status["dead_letters"] + status["duplicates"]
        progress(taken)
        if taken >= at_least and ray.get(stream.wait_idle.remote(5.0)):
            return ray.get(stream.status.remote())  # type: ignore[no-any-return]
        time.sleep(0.2)
    raise Unavailable(f"the streaming features took {taken} of {at_least} messages in {TIMEOUT_S:.0f} s")
