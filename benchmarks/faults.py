"""Faults of a running API, each with the proof that it happened: a figure, or an AssertionError."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psutil

from benchmarks.online_home import Redis
from matinee.client import Client, Refused
from matinee.config import Settings
from matinee.serving.splits import Splits

BACK_S = 60.0
"""How long new replicas may take."""
ASKED_S = 0.5
"""How long a part that is stopped is asked whether it answers."""
SHARES = (0.1, 0.5, 0.9)
"""Of version 2, second after second."""
MOST = 400
"""The greatest k after the update; `MOST + 1` was accepted before."""

Proof = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What may go wrong with the API of this process' Ray cluster; each fault takes the seconds it lasts.

    Args:
        settings: of the API: two replicas, versions "1" and "2".
        bootstrap: the broker's address.
        broker: its process.
        redis: the feature store.
        url: the API's.
    """

    settings: Settings
    bootstrap: str
    broker: int
    redis: Redis
    url: str

    def weights(self, seconds: float, versions: Counter[str]) -> Proof:
        """Change the split every second; answers must follow.

        Args:
            versions: counts the answers by version while this runs.
        """
        splits = Splits(self.settings)
        before, shares = len(splits.history("home")), []
        for turn in range(round(seconds)):
            share = SHARES[turn % len(SHARES)]
            seen = versions.copy()
            splits.set("home", {"1": 1 - share, "2": share}, who="benchmark", why="a weight a second")
            time.sleep(1)
            shares.append(_share(versions - seen))
        changes = len(splits.history("home")) - before
        splits.close()
        _prove(changes == round(seconds), f"{changes} changes of the split in {seconds:g} s")
        _prove(max(shares) - min(shares) > 0.3, f"answers do not follow the split: version 2 has {shares}")
        return {"changes": changes, "share_of_2": [round(min(shares), 2), round(max(shares), 2)]}

    def update(self) -> Proof:
        """Replace every replica by one with other settings."""
        from matinee.gateway import deployment

        before = replicas()
        _prove(self._accepts(MOST + 1), f"k={MOST + 1} is refused before the update")
        serving = self.settings.serving.model_copy(update={"max_k": MOST})
        deployment.start(self.settings.model_copy(update={"serving": serving}), self.bootstrap)
        after = replicas_without(before, len(before))
        _prove(not self._accepts(MOST + 1), f"k={MOST + 1} is accepted after the update")
        return {"replicas": [before, after]}

    def kill(self, seconds: float) -> Proof:
        """Kill a replica, and wait until there are as many again, and somewhat longer."""
        before = replicas()
        os.kill(before[0], signal.SIGKILL)
        after = replicas_without(before[:1], len(before))
        time.sleep(seconds)
        return {"replicas": [before, after]}

    def store(self, seconds: float) -> Proof:
        """Stop the feature store for a while."""
        return stopped(self.redis.pid, seconds, lambda: store_answers(self.redis.port))

    def backbone(self, seconds: float) -> Proof:
        """Stop the broker for a while."""
        return stopped(self.broker, seconds, lambda: broker_answers(self.bootstrap))

    def _accepts(self, k: int) -> bool:
        with Client(self.url) as client:
            try:
                client.recommend("m1", k=k)
            except Refused:
                return False
        return True


@contextmanager
def hung(bundle: Any) -> Iterator[Hanging]:
    """The model of a loaded bundle answers nobody during the block; yields it."""
    model = Hanging(bundle.model)
    object.__setattr__(bundle, "model", model)
    try:
        yield model
    finally:
        model.release()
        object.__setattr__(bundle, "model", model.model)
    _prove(model.waited > 0, "nobody asked the model while it hung")


class Hanging:
    """A model that answers no more until it is released.

    Attributes:
        waited: how often it was asked meanwhile.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.waited = 0
        self._released = threading.Event()

    @property
    def members(self) -> Any:
        return self.model.members

    def score_parts(self, query: Any) -> Any:
        self.waited += 1
        self._released.wait()
        return self.model.score_parts(query)

    def release(self) -> None:
        self._released.set()


def replicas() -> list[int]:
    """Processes of the replicas of the API that this process started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "ServeReplica:matinee" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


def replicas_without(gone: list[int], count: int) -> list[int]:
    """The replicas, once there are `count` and those of `gone` are none of them."""
    deadline = time.monotonic() + BACK_S
    while len(found := replicas()) != count or set(found) & set(gone):
        _prove(time.monotonic() < deadline, f"replicas are {found}; expected: {count} others than {gone}")
        time.sleep(0.1)
    return found


def stopped(pid: int, seconds: float, answers: Callable[[], bool]) -> Proof:
    """Stop a process (SIGSTOP) for a while.

    Args:
        answers: whether the part that the process is answers, within about `ASKED_S`.
    """
    _prove(answers(), f"process {pid}: the part does not answer before it is stopped")
    os.kill(pid, signal.SIGSTOP)
    begun = time.monotonic()
    try:
        _prove(not answers(), f"process {pid} is stopped and the part answers")
        time.sleep(max(0.0, begun + seconds - time.monotonic()))
        _prove(not answers(), f"process {pid} is stopped and the part answers")
    finally:
        os.kill(pid, signal.SIGCONT)
    away = time.monotonic() - begun
    _prove(answers(), f"process {pid} goes on and the part does not answer")
    return {"away_s": round(away, 1)}


def store_answers(port: int) -> bool:
    """Redis answers a ping."""
    import redis

    with redis.Redis(port=port, socket_timeout=ASKED_S, retry=None) as client:
        try:
            return bool(client.ping())
        except (redis.TimeoutError, redis.ConnectionError):
            return False


def broker_answers(bootstrap: str) -> bool:
    """The broker tells its topics."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    try:
        AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=2 * ASKED_S)
    except KafkaException:
        return False
    return True


def _share(versions: Counter[str]) -> float:
    """Of the answers, those of version 2."""
    return sum(count for name, count in versions.items() if name.endswith("/2")) / max(versions.total(), 1)


def _prove(found: bool, failure: str) -> None:
    if not found:
        raise AssertionError(failure)
