"""Requests that fail while something goes wrong: clients ask for pages all the time and retry as ours does.

Two replicas on one machine, features in Redis. Scenarios: weights that change every second, a rolling update,
a replica killed with SIGKILL, the feature store and the broker stopped (SIGSTOP) for a while, a model that
hangs. A request failed when the client gave up or got anything but a page. (5x overload: `serving_load`.)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import psutil

from benchmarks import served
from benchmarks.common import arguments, machine, skipped
from benchmarks.servers import free_port
from matinee.client import Client
from matinee.config import Settings, load_settings
from matinee.errors import MatineeError
from matinee.serving.splits import Splits

NAME = "serving_faults"
TITLES, MEMBERS = 1_000, 500
THREADS = 6
PAUSE_S = 0.02
"""Between two requests of a thread."""
SETTLE_S = 2.0
"""Before a fault begins, and after it is over."""


@dataclass(kw_only=True)
class Seen:
    """What clients met.

    Args:
        fallbacks: answers by what stood in for the version's own scores.
        failures: what was wrong with those that failed.
    """

    requests: int = 0
    failures: list[str] = field(default_factory=list)
    fallbacks: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def line(self, scenario: str) -> dict[str, Any]:
        """For printing."""
        return {
            "name": NAME,
            "scenario": scenario,
            "requests": self.requests,
            "failed": len(self.failures),
            "failures": self.failures[:3],
            "fallbacks": dict(self.fallbacks),
            "versions": dict(self.versions),
            "p50_ms": round(float(np.percentile(self.latencies, 50)) * 1e3, 1),
            "p95_ms": round(float(np.percentile(self.latencies, 95)) * 1e3, 1),
            "longest_ms": round(max(self.latencies) * 1e3, 1),
            "machine": machine(),
        }


@contextmanager
def asked(url: str) -> Iterator[Seen]:
    """Clients that ask for home pages and rankings during the block."""
    seen, ended, lock = Seen(), threading.Event(), threading.Lock()

    def ask(thread: int) -> None:
        draw = np.random.default_rng(thread)
        with Client(url) as client:
            while not ended.wait(PAUSE_S):
                member = f"m{draw.integers(MEMBERS)}"
                start = time.perf_counter()
                try:
                    answer = client.home(member) if draw.random() < 0.5 else client.recommend(member, k=10)
                    failure = (
                        None if answer.get("rows") or answer.get("items") else f"an empty answer: {answer}"
                    )
                except MatineeError as raised:
                    answer, failure = {}, str(raised)
                with lock:
                    seen.requests += 1
                    seen.latencies.append(time.perf_counter() - start)
                    if failure:
                        seen.failures.append(failure)
                    else:
                        seen.fallbacks[str(answer["fallback"])] += 1
                        seen.versions[answer["model_version"]] += 1

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(SETTLE_S)
        yield seen
        time.sleep(SETTLE_S)
    finally:
        ended.set()
        for thread in threads:
            thread.join()


@dataclass(kw_only=True)
class Stage:
    """What runs: settings of the running API, the broker's address, and the processes that faults stop."""

    settings: Settings
    bootstrap: str
    url: str
    broker: int
    redis: int

    def weights(self, seconds: float) -> None:
        """Change the split every second."""
        splits = Splits(self.settings)
        for turn in range(round(seconds)):
            share = (0.1, 0.5, 0.9)[turn % 3]
            splits.set("home", {"1": 1 - share, "2": share}, who=NAME, why="a weight a second")
            time.sleep(1)
        splits.close()

    def update(self, seconds: float) -> None:
        """Replace every replica by one with other settings."""
        from matinee.gateway import deployment

        serving = self.settings.serving.model_copy(update={"max_k": 400})
        deployment.start(self.settings.model_copy(update={"serving": serving}), self.bootstrap)

    def kill(self, seconds: float) -> None:
        """Kill a replica, and wait until there are two again."""
        before = replicas()
        os.kill(before[0], signal.SIGKILL)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(set(replicas()) - {before[0]}) < len(before):
            time.sleep(0.1)
        time.sleep(seconds)

    def store(self, seconds: float) -> None:
        """Stop the feature store for a while."""
        _stopped(self.redis, seconds)

    def backbone(self, seconds: float) -> None:
        """Stop the broker for a while."""
        _stopped(self.broker, seconds)


def main() -> None:
    args = arguments(__doc__)
    if shutil.which("redis-server") is None:
        skipped(NAME, "", "no redis-server on this machine")
        return
    with tempfile.TemporaryDirectory(prefix=f"matinee-{NAME}-") as scratch:
        for line in run(Path(scratch), short=args.quick):
            print(json.dumps(line), flush=True)


def run(folder: Path, *, short: bool) -> Iterator[dict[str, Any]]:
    """Every scenario's line."""
    times = {"weights": 6 if short else 60, "store": 3 if short else 10, "backbone": 3 if short else 10}
    with staged(folder) as stage:
        for name, fault in faults(stage).items():
            with asked(stage.url) as seen:
                fault(times.get(name, 1.0))
            yield seen.line(name)
    yield hanging(folder, 2.0 if short else 10.0).line("a model that hangs")


def faults(stage: Stage) -> dict[str, Callable[[float], None]]:
    """By name."""
    return {
        "weights": stage.weights,
        "update": stage.update,
        "kill": stage.kill,
        "store": stage.store,
        "backbone": stage.backbone,
    }


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    """Redis, broker, Ray and two replicas that serve two versions."""
    from matinee.events.broker import LocalBroker
    from matinee.events.kafka import ensure_topics
    from matinee.gateway import deployment
    from matinee.local.cluster import connect

    with ExitStack() as stack:
        port = free_port()
        redis = subprocess.Popen(
            [*f"redis-server --bind 127.0.0.1 --port {port} --dir {folder} --save".split(), ""],
            stdout=subprocess.DEVNULL,
        )
        stack.callback(redis.wait)
        stack.callback(redis.terminate)
        settings = load_settings(
            {
                "home": str(folder / "home"),
                "features.online_store": "redis",
                "features.redis": f"127.0.0.1:{port}",
                "serving.replicas": 2,
                "serving.port": free_port(),
            },
            environment={},
        )
        _filled(settings)
        stack.enter_context(connect(settings))
        broker = stack.enter_context(LocalBroker(folder / "broker.log"))
        ensure_topics(settings.kafka, broker.bootstrap)
        url = deployment.start(settings, broker.bootstrap)
        stack.callback(deployment.stop, cluster_ends=True)
        _ready(url)
        yield Stage(
            settings=settings, bootstrap=broker.bootstrap, url=url, broker=broker.pid, redis=redis.pid
        )


def _filled(settings: Settings) -> None:
    """The home, with its champion registered a second time."""
    from matinee.registry.mlflow import Registry

    served.make(settings, titles=TITLES, members=MEMBERS)
    registry = Registry(settings)
    with registry.run("ensemble", config={}, tags={}) as run:
        registry.register(settings.serving.model, settings.home / "draft", run_id=run.run_id, metrics={})


def hanging(folder: Path, seconds: float) -> Seen:
    """Pages while the live version's model hangs. The API runs in this process: its model is at hand."""
    from matinee.gateway.assembly import assemble
    from matinee.serving import versions
    from matinee.serving.listener import Listener

    settings = load_settings({"home": str(folder / "hanging"), "serving.page_cache": "none"}, environment={})
    served.make(settings, titles=TITLES, members=MEMBERS)
    loaded, load_live = [], versions.load_live

    def noted(*given: Any, **more: Any) -> Any:
        loaded.append(load_live(*given, **more))
        return loaded[-1]

    port = free_port()
    listener = Listener(assemble(settings, "127.0.0.1:9"), "127.0.0.1", port, keep_alive_s=60, drain_s=5)
    with mock.patch.object(versions, "load_live", noted):
        listener.start()
    released = threading.Event()
    bundle = loaded[0].bundle
    model = bundle.model
    try:
        with asked(f"http://127.0.0.1:{port}") as seen:
            object.__setattr__(bundle, "model", _Hanging(model, released))
            time.sleep(seconds)
            released.set()
            object.__setattr__(bundle, "model", model)
    finally:
        released.set()
        listener.stop()
    return seen


class _Hanging:
    """A model that answers no more until it is released."""

    def __init__(self, model: Any, released: threading.Event) -> None:
        self._model = model
        self._released = released

    @property
    def members(self) -> Any:
        return self._model.members

    def score_parts(self, query: Any) -> Any:
        self._released.wait()
        return self._model.score_parts(query)


def replicas() -> list[int]:
    """Processes of the replicas of the API that this process started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "ServeReplica:matinee" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


def _stopped(pid: int, seconds: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def _ready(url: str) -> None:
    with Client(url) as client:
        client.recommend("m1", k=1)


if __name__ == "__main__":
    sys.exit(main())
