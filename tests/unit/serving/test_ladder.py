"""Which rung answers: the decision, the breaker's rules, and models that sleep, hang or raise."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from matinee.errors import InvalidInput, Unavailable
from matinee.serving import ladder
from matinee.serving.ladder import FAILURES, FIRST_PAUSE_S, MOST_HANGING, SHARE, Breaker, Ladder, Rung, decide


def rung(name: str, key: str = "") -> Rung[str]:
    return Rung(name=name, key=key, work=lambda rung: rung.name)


RUNGS = [rung("live", "v1"), rung("part:cf", "v1/cf"), rung("popular")]


@pytest.mark.parametrize(
    ("left_s", "refused", "action", "why"),
    [
        (0.5, set(), "live", "live has 0.300 s"),
        (0.5, {"v1"}, "part:cf", "v1 failed lately"),
        (0.5, {"v1", "v1/cf"}, "popular", "v1/cf failed lately"),
        (0.01, set(), "popular", "at least 0.01 s are needed"),
        (-1.0, set(), "popular", "popular needs no model"),
    ],
)
def test_the_best_rung_that_may_be_tried(left_s: float, refused: set[str], action: str, why: str) -> None:
    decision = decide(RUNGS, left_s=left_s, refused=refused)
    assert decision.action == action
    assert why in decision.reason
    if action != "popular":
        assert decision.evidence["budget_s"] == pytest.approx(SHARE * left_s)


def test_a_model_is_left_alone_after_failures_in_a_row_and_asked_by_one_at_a_time() -> None:
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        breaker.failed("v1", 0.0)
    assert breaker.refused(["v1", "v2"], 0.0) == set()
    breaker.failed("v1", 0.0)
    assert breaker.refused(["v1", "v2"], FIRST_PAUSE_S / 2) == {"v1"}
    assert breaker.refused(["v1"], FIRST_PAUSE_S) == set()
    breaker.trying("v1", FIRST_PAUSE_S)
    assert breaker.refused(["v1"], FIRST_PAUSE_S) == {"v1"}
    breaker.failed("v1", 2.0)
    assert breaker.refused(["v1"], 2.0 + 1.9 * FIRST_PAUSE_S) == {"v1"}
    assert breaker.refused(["v1"], 2.0 + 2 * FIRST_PAUSE_S) == set()
    breaker.passed("v1")
    breaker.failed("v1", 5.0)
    assert breaker.refused(["v1"], 5.0) == set()


def test_a_model_in_which_threads_hang_is_not_asked_until_one_returns() -> None:
    breaker = Breaker()
    for _ in range(MOST_HANGING):
        breaker.failed("v1", 0.0)
        breaker.hangs("v1")
    assert breaker.refused(["v1"], 1e9) == {"v1"}
    breaker.returned("v1")
    assert breaker.refused(["v1"], 1e9) == set()


@pytest.fixture
def climber() -> Iterator[Ladder]:
    made = Ladder(deadline_s=0.3, threads=2)
    yield made
    made.close()


def raises(_: Rung[str]) -> str:
    raise RuntimeError("broken")


def test_a_rung_that_raises_or_has_nothing_gives_way(climber: Ladder) -> None:
    rungs = [
        Rung(name="live", key="v1", work=raises),
        Rung(name="cached", work=lambda _: None),
        rung("popular"),
    ]
    assert asyncio.run(climber.climb(rungs)) == "popular"
    assert climber.answered == {"popular": 1}


def test_what_the_caller_did_wrong_is_told(climber: Ladder) -> None:
    def refuse(_: Rung[str]) -> str:
        raise InvalidInput("k is 0")

    with pytest.raises(InvalidInput, match="k is 0"):
        asyncio.run(climber.climb([Rung(name="live", key="v1", work=refuse), rung("popular")]))
    assert climber.breaker.refused(["v1"], time.monotonic()) == set()


def test_no_rung_left_is_unavailable(climber: Ladder) -> None:
    with pytest.raises(Unavailable, match="no rung"):
        asyncio.run(climber.climb([Rung(name="popular", work=raises)]))


def test_a_model_that_hangs_costs_few_threads_and_no_answer(
    climber: Ladder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """80 requests at once, then 20 more, then the model recovers and is found again."""
    monkeypatch.setattr(ladder, "FIRST_PAUSE_S", 0.05)
    release = threading.Event()
    asked = []

    def hang(_: Rung[str]) -> str:
        asked.append(time.monotonic())
        release.wait(20)
        return "live"

    rungs = [Rung(name="live", key="v1", work=hang), rung("part:cf", "v1/cf"), rung("popular")]

    async def ask(count: int) -> list[str]:
        return await asyncio.gather(*(climber.climb(rungs) for _ in range(count)))

    start = time.monotonic()
    answers = asyncio.run(ask(80))
    assert time.monotonic() - start < 1.5
    assert set(answers) <= {"part:cf", "popular"}
    assert len(asked) <= FAILURES + 2
    assert set(asyncio.run(ask(20))) == {"part:cf"}
    assert 0 < climber.lost <= MOST_HANGING + 1
    release.set()
    deadline = time.monotonic() + 5
    while asyncio.run(climber.climb(rungs)) != "live":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert climber.lost == 0
    assert asyncio.run(ask(10)) == ["live"] * 10


def test_a_caller_that_leaves_does_not_keep_the_thread(climber: Ladder) -> None:
    release = threading.Event()

    async def leave() -> None:
        rungs = [Rung(name="live", key="v1", work=lambda _: str(release.wait(20))), rung("popular")]
        tasks = [asyncio.create_task(climber.climb(rungs)) for _ in range(2)]
        await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0.3)

    asyncio.run(leave())
    assert climber.lost == 2
    assert asyncio.run(climber.climb([rung("live", "v2"), rung("popular")])) == "live"
    release.set()
