"""Faults prove that they happened: a part that is stopped, a model that hangs, and those that are not."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import redis_server
from benchmarks import faults, online_home

from matinee.events.broker import LocalBroker


@pytest.fixture
def bystander() -> Iterator[int]:
    """A process that is no part of anything."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()
        process.kill()


@redis_server.needs_redis
def test_a_store_is_away_for_as_long_as_its_process_is_stopped(tmp_path: Path, bystander: int) -> None:
    with online_home.redis_server(tmp_path) as server:
        assert server is not None
        proof = faults.stopped(server.pid, 0.2, lambda: faults.store_answers(server.port))
        assert proof["away_s"] >= 0.2
        with pytest.raises(AssertionError, match="is stopped and the part answers"):
            faults.stopped(bystander, 0.2, lambda: faults.store_answers(server.port))
    assert psutil.Process(bystander).status() != psutil.STATUS_STOPPED


def test_a_broker_is_away_for_as_long_as_its_process_is_stopped(tmp_path: Path) -> None:
    with LocalBroker(tmp_path / "broker.log") as broker:
        proof = faults.stopped(broker.pid, 0.2, lambda: faults.broker_answers(broker.bootstrap))
    assert proof["away_s"] >= 0.2
    with pytest.raises(AssertionError, match="does not answer before it is stopped"):
        faults.stopped(broker.pid, 0.2, lambda: faults.broker_answers(broker.bootstrap))


def test_a_model_hangs_until_it_is_released_and_one_that_nobody_asked_did_not() -> None:
    own = SimpleNamespace(members={}, score_parts=lambda query: {"cf": query})
    bundle, found = SimpleNamespace(model=own), []
    with faults.hung(bundle) as model:
        asking = threading.Thread(target=lambda: found.append(bundle.model.score_parts(3)))
        asking.start()
        asking.join(0.2)
        assert asking.is_alive()
    asking.join(5)
    assert (found, model.waited, bundle.model) == ([{"cf": 3}], 1, own)
    with pytest.raises(AssertionError, match="nobody asked"), faults.hung(bundle):
        pass


def test_replicas_that_do_not_come_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "BACK_S", 0.2)
    monkeypatch.setattr(faults, "replicas", lambda: [1, 3])
    assert faults.replicas_without([2], 2) == [1, 3]
    with pytest.raises(AssertionError, match=r"replicas are \[1, 3\]; expected: 2 others than \[1\]"):
        faults.replicas_without([1], 2)
