"""What answers when the best does not in time: rungs from the live ensemble down to popular titles.

`decide` chooses a rung and `Breaker` says which models are left alone; both are values and rules without
threads or clocks. `Ladder` acts: it runs a rung, waits as long as it was told, and goes on to the next.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from matinee.errors import InvalidInput, NotFound, Unavailable
from matinee.schema import Decision
from matinee.serving.workers import Workers

T = TypeVar("T")

LIVE, CACHED, POPULAR = "live", "cached", "popular"
PART = "part:"
"""Before the name of a model inside the version."""

SHARE = 0.6
"""Of the time that is left, what a model may take: the rest is for the rungs below it."""
LEAST_S = 0.01
"""A model is not asked with less time than this."""
GRACE_S = 1.0
"""What a rung without a model may take beyond the deadline; it takes milliseconds."""

FAILURES = 3
"""Failures in a row after which a model is left alone."""
FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 60.0
"""How long it is left alone: from the first to the last, doubling while it keeps failing."""
MOST_HANGING = 4
"""Threads that may hang in one model; with so many it is not asked again before one returns."""

SPARE_THREADS = 2
"""For rungs without a model, which never wait behind one."""

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Rung(Generic[T]):
    """A way to answer.

    Args:
        name: LIVE, PART and a model's name, CACHED or POPULAR; unique among the rungs of an answer.
        work: gives the answer, or None where this rung has none; it runs in a thread and may say in
            `waiting_for` what it is about to wait for; "" where nobody but ourselves is to blame.
        key: the model it needs, as the breaker knows it; "": none.
    """

    name: str
    work: Callable[[Rung[T]], T | None]
    key: str = ""
    waiting_for: str = ""

    def __post_init__(self) -> None:
        self.waiting_for = self.waiting_for or self.key


def decide(rungs: Sequence[Rung[Any]], *, left_s: float, refused: Collection[str]) -> Decision:
    """The first of the rungs that may be tried now.

    Args:
        rungs: those not tried yet, best first; the last needs no model.
        left_s: seconds to the deadline.
        refused: keys that the breaker refuses.

    Returns:
        The rung's name as the action, and `budget_s`, the seconds it may take.
    """
    reasons = []
    for rung in rungs:
        if not rung.key:
            reasons.append(f"{rung.name} needs no model")
            budget = max(left_s, 0.0) + GRACE_S
            return Decision(action=rung.name, reason="; ".join(reasons), evidence={"budget_s": budget})
        budget = SHARE * left_s
        if rung.key in refused:
            reasons.append(f"{rung.key} failed lately and is left alone")
        elif budget < LEAST_S:
            reasons.append(f"{rung.key} would have {budget:.3f} s; at least {LEAST_S} s are needed")
        else:
            reasons.append(f"{rung.name} has {budget:.3f} s")
            return Decision(action=rung.name, reason="; ".join(reasons), evidence={"budget_s": budget})
    raise AssertionError("the last rung needs a model")


@dataclass(kw_only=True)
class _Record:
    failures: int = 0
    pause_s: float = 0.0
    until: float = 0.0


class _TooLateError(Exception):
    """The work did not begin; nobody is to blame."""


class Breaker:
    """Which models are left alone after failing, and until when. Safe between threads."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._hanging: Counter[str] = Counter()
        self._lock = threading.Lock()

    def refused(self, keys: Collection[str], now: float) -> set[str]:
        """Those of `keys` that are left alone at `now` (seconds of any clock)."""
        return {key for key in keys if self._refuses(key, now)} if self._records else set()

    def trying(self, key: str, now: float) -> bool:
        """A model is asked; returns whether this is the one request that tries it after its pause."""
        with self._lock:
            record = self._records.get(key)
            if record is None or record.failures < FAILURES:
                return False
            record.until = now + record.pause_s
            return True

    def passed(self, key: str) -> None:
        """It answered: nothing is held against it any more."""
        if key in self._records:
            with self._lock:
                self._records.pop(key, None)
            logger.info("%s answers again", key)

    def failed(self, key: str, now: float) -> None:
        """It raised, or did not answer in time."""
        with self._lock:
            record = self._records.setdefault(key, _Record())
            record.failures += 1
            if record.failures >= FAILURES:
                record.pause_s = min(2 * record.pause_s or FIRST_PAUSE_S, LAST_PAUSE_S)
                record.until = now + record.pause_s

    def hangs(self, key: str) -> None:
        """A thread was given up in it."""
        with self._lock:
            self._hanging[key] += 1

    def returned(self, key: str) -> None:
        """Such a thread came back."""
        with self._lock:
            self._hanging[key] -= 1

    def _refuses(self, key: str, now: float) -> bool:
        record = self._records.get(key)
        return record is not None and (now < record.until or self._hanging[key] >= MOST_HANGING)


class Ladder:
    """Climbs down rungs until one answers.

    Args:
        deadline_s: seconds an answer may take.
        threads: that ask models.

    Attributes:
        answered: how many answers each rung gave.
    """

    def __init__(self, *, deadline_s: float, threads: int) -> None:
        self.breaker = Breaker()
        self.answered: Counter[str] = Counter()
        self._deadline_s = deadline_s
        self._models = Workers(threads, "scoring")
        self._spare = Workers(SPARE_THREADS, "spare")

    @property
    def lost(self) -> int:
        """Threads that hang in a model at this moment."""
        return self._models.lost

    async def climb(self, rungs: Sequence[Rung[T]]) -> T:
        """The answer of the best rung that gives one.

        Args:
            rungs: best first; the last needs no model and always answers.

        Raises:
            InvalidInput, NotFound: as a rung raised it.
            Unavailable: not even the last rung answered.
        """
        deadline = time.monotonic() + self._deadline_s
        while rungs:
            now = time.monotonic()
            refused = self.breaker.refused([rung.key for rung in rungs if rung.key], now)
            decision = decide(rungs, left_s=deadline - now, refused=refused)
            place = next(i for i, rung in enumerate(rungs) if rung.name == decision.action)
            rung, rungs = rungs[place], rungs[place + 1 :]
            found = await self._tried(rung, decision)
            if found is not None:
                self.answered[rung.name.partition(":")[0]] += 1
                return found
        raise Unavailable("no rung of the ladder answered in time", retry_after_s=1.0)

    def close(self) -> None:
        """Take no more work."""
        self._models.close()
        self._spare.close()

    async def _tried(self, rung: Rung[T], decision: Decision) -> T | None:
        budget = decision.evidence["budget_s"]
        if rung.key:
            now = time.monotonic()
            alone = self.breaker.trying(rung.key, now)
            future = self._models.submit(lambda: self._begun(rung, now + budget, alone=alone))
            workers = self._models
        else:
            future = self._spare.submit(lambda: rung.work(rung))
            workers = self._spare
        try:
            async with asyncio.timeout(budget):
                found = await asyncio.wrap_future(future)
        except _TooLateError:
            return None
        except (InvalidInput, NotFound):
            raise
        except TimeoutError:
            self._late(rung, workers, future, decision)
            return None
        except asyncio.CancelledError:  # nobody waits any more, but the thread may hang all the same
            loop = asyncio.get_running_loop()
            loop.call_later(budget, self._late, rung, workers, future, decision)
            raise
        except Exception:
            if rung.waiting_for:
                self.breaker.failed(rung.waiting_for, time.monotonic())
            logger.warning("rung %s failed in %s", rung.name, rung.waiting_for or "itself", exc_info=True)
            return None
        if rung.key:
            self.breaker.passed(rung.key)
        return found

    def _begun(self, rung: Rung[T], until: float, *, alone: bool) -> T | None:
        """The work, unless the model began to fail, or the time ran out, while it waited for a thread."""
        now = time.monotonic()
        if now > until - LEAST_S or (not alone and self.breaker.refused([rung.key], now)):
            raise _TooLateError
        return rung.work(rung)

    def _late(self, rung: Rung[T], workers: Workers, future: Future[T | None], decision: Decision) -> None:
        """Give it up. Where no thread was free in time, nobody is to blame."""
        key = rung.waiting_for
        if workers.abandon(future) and key:
            self.breaker.failed(key, time.monotonic())
            self.breaker.hangs(key)
            future.add_done_callback(lambda _: self.breaker.returned(key))
            logger.warning("%s gave no answer: %s", key, decision.reason)
