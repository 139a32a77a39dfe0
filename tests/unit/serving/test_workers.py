"""Threads that hang are replaced, and what waits is done."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from matinee.serving.workers import Workers


@pytest.fixture
def workers() -> Iterator[Workers]:
    made = Workers(2, "test")
    yield made
    made.close()


def test_work_is_done_and_failures_come_back(workers: Workers) -> None:
    assert [workers.submit(lambda n=n: n * n).result(2) for n in range(5)] == [0, 1, 4, 9, 16]
    with pytest.raises(ZeroDivisionError):
        workers.submit(lambda: 1 // 0).result(2)


def test_a_thread_that_hangs_is_replaced_and_ends_when_it_returns(workers: Workers) -> None:
    release, begun = threading.Event(), threading.Semaphore(0)

    def hang() -> str:
        begun.release()
        release.wait(10)
        return "late"

    hanging = [workers.submit(hang) for _ in range(2)]
    waiting = workers.submit(lambda: "next")
    for _ in range(2):
        assert begun.acquire(timeout=2)
    before = threading.active_count()
    assert [workers.abandon(future) for future in hanging] == [True, True]
    assert not workers.abandon(hanging[0])
    assert waiting.result(2) == "next"
    assert workers.lost == 2
    assert threading.active_count() == before + 2
    release.set()
    assert [future.result(2) for future in hanging] == ["late", "late"]
    assert workers.lost == 0
    assert workers.submit(lambda: "still there").result(2) == "still there"


def test_work_that_has_not_begun_never_does(workers: Workers) -> None:
    release = threading.Event()
    done = []
    busy = [workers.submit(lambda: release.wait(5)) for _ in range(2)]
    waiting = workers.submit(lambda: done.append(1))
    assert not workers.abandon(waiting)
    release.set()
    assert all(future.result(2) for future in busy)
    assert workers.submit(lambda: list(done)).result(2) == []
    assert workers.lost == 0
