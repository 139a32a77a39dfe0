"""Requests that fail while something goes wrong: clients ask for pages all the time and retry as ours does.

Two replicas on one machine, features in Redis. Scenarios: weights that change every second, a rolling update,
a replica killed with SIGKILL, the feature store and the broker stopped (SIGSTOP) for a while, a model that
hangs; each proves that it happened (`faults`), or the run ends. A request failed when the client gave up or
got anything but a page. (5x overload: `serving_load`.)
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import served
from benchmarks.common import arguments, machine, skipped
from benchmarks.faults import Faults, Proof, hung
from benchmarks.online_home import redis_server
from matinee.client import Client
from matinee.config import Settings
from matinee.errors import MatineeError
from matinee.local.cluster import free_port

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

    def line(self, scenario: str, proof: Proof) -> dict[str, Any]:
        """For printing; `proof` tells that the fault happened."""
        return {
            "name": NAME,
            "scenario": scenario,
            "proof": dict(proof),
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
    away = 3.0 if short else 10.0
    with staged(folder) as faults:
        scenarios: dict[str, Callable[[Seen], Proof]] = {
            "weights": lambda seen: faults.weights(6 if short else 60, seen.versions),
            "update": lambda _: faults.update(),
            "kill": lambda _: faults.kill(1.0),
            "store": lambda _: faults.store(away),
            "backbone": lambda _: faults.backbone(away),
        }
        for name, fault in scenarios.items():
            with asked(faults.url) as seen:
                proof = fault(seen)
            yield seen.line(name, proof)
    seen, proof = hanging(folder, 2.0 if short else 10.0)
    yield seen.line("a model that hangs", proof)


@contextmanager
def staged(folder: Path) -> Iterator[Faults]:
    """Redis, broker, Ray and two replicas that serve two versions."""
    from matinee.events.broker import LocalBroker
    from matinee.events.kafka import ensure_topics
    from matinee.gateway import deployment
    from matinee.local.cluster import connect

    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(folder))
        assert redis is not None
        settings = _home(
            folder / "home",
            {
                "features.online_store": "redis",
                "features.redis": f"127.0.0.1:{redis.port}",
                "serving.replicas": 2,
                "serving.port": free_port(),
            },
        )
        _register_again(settings)
        stack.enter_context(connect(settings))
        broker = stack.enter_context(LocalBroker(folder / "broker.log"))
        ensure_topics(settings.kafka, broker.bootstrap)
        url = deployment.start(settings, broker.bootstrap)
        stack.callback(deployment.stop, cluster_ends=True)
        _ready(url)
        yield Faults(settings=settings, bootstrap=broker.bootstrap, url=url, broker=broker.pid, redis=redis)


def _home(folder: Path, flags: Mapping[str, object]) -> Settings:
    return served.home(folder, titles=TITLES, members=MEMBERS, flags=flags)


def _register_again(settings: Settings) -> None:
    """The champion's files a second time, as version 2."""
    from matinee.registry.mlflow import Registry

    registry = Registry(settings)
    with registry.run("ensemble", config={}, tags={}) as run:
        registry.register(settings.serving.model, settings.home / "draft", run_id=run.run_id, metrics={})


def hanging(folder: Path, seconds: float) -> tuple[Seen, Proof]:
    """Pages while the live version's model hangs. The API runs in this process: its model is at hand."""
    from matinee.gateway.assembly import assemble
    from matinee.serving import versions
    from matinee.serving.listener import Listener

    settings = _home(folder / "hanging", {"serving.page_cache": "none"})
    loaded, load_live = [], versions.load_live

    def noted(*given: Any, **more: Any) -> Any:
        loaded.append(load_live(*given, **more))
        return loaded[-1]

    port = free_port()
    listener = Listener(assemble(settings, "127.0.0.1:9"), "127.0.0.1", port, keep_alive_s=60, drain_s=5)
    with mock.patch.object(versions, "load_live", noted):
        listener.start()
    try:
        with asked(f"http://127.0.0.1:{port}") as seen, hung(loaded[0].bundle) as model:
            time.sleep(seconds)
    finally:
        listener.stop()
    return seen, {"asked_in_vain": model.waited}


def _ready(url: str) -> None:
    with Client(url) as client:
        client.recommend("m1", k=1)


if __name__ == "__main__":
    main()
