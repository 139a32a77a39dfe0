"""Pages in the memory of a replica, ready to be given again without asking anything.

A page is at hand until its member does something. Events at this replica's own door say so at once; of what
comes by other ways the feature store tells, which a thread asks what was written, for all pages together.
While the store does not answer, nothing is at hand, and the way over the ladder decides.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Hashable, Mapping
from dataclasses import dataclass

from matinee.errors import MatineeError
from matinee.features.rows import Cursor
from matinee.serving.exposures import PageExposure
from matinee.serving.pages import HomeAnswer, HomeRequest
from matinee.serving.versions import Plan

MOST = 2_000
"""Pages at hand; each has some 40 KB. Beyond them the one that was put here first goes."""
INTERVAL_S = 0.25
"""How often the store is asked what was written."""
CLOSE_S = 2.0
"""How long its last answer is waited for at the end."""

Written = Callable[[Collection[str], Mapping[str, Cursor]], tuple[Mapping[str, Cursor], set[str] | None]]
"""As `Recommender.written`."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A page at hand.

    Args:
        plan: under which it was given: while it is in force, the member's cell and version are the same.
        made_at: microseconds, as all times.
        until: when it is too old to be given again.
        told: as `HomePage.told`.
    """

    request: HomeRequest
    plan: Plan
    made_at: int
    until: int
    told: bytes
    exposure: PageExposure


class PageMemory:
    """Pages by what was asked for, word for word: the same words are the same request. Safe between threads.

    Args:
        written: tells which members were written to in the feature store.
        look_s: how old the store's last answer to that may be; 0: no page is ever at hand.
        ttl_s: as of `PageCache`.
    """

    def __init__(self, written: Written, *, look_s: float, ttl_s: float) -> None:
        self._written = written
        self._look_us = int(look_s * 1e6)
        self._ttl_us = int(ttl_s * 1e6)
        self._pages: dict[Hashable, Held] = {}
        self._asked: dict[str, set[Hashable]] = {}
        self._lock = threading.Lock()
        self._looking = False
        self._looked = self._told_at = -1
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)

    def get(self, asked: Hashable, *, plan: Plan, now: int) -> Held | None:
        """The page that `asked` was answered with, where it may be given again."""
        held = self._pages.get(asked)
        if held is None or now - self._told_at >= self._look_us:
            return None
        if held.plan is plan and now < held.until:
            return held
        with self._lock:
            self._drop(asked)
        return None

    def put(
        self, asked: Hashable, request: HomeRequest, answer: HomeAnswer, *, plan: Plan, until: int
    ) -> None:
        """Have a page at hand that was just given: the member's features were read after `answer.time`.

        Args:
            until: when the titles on offer change.
        """
        if not self._look_us or answer.page.made_at + self._ttl_us <= answer.time:
            return
        held = Held(
            request=request,
            plan=plan,
            made_at=answer.page.made_at,
            until=min(until, answer.page.made_at + self._ttl_us),
            told=answer.page.told,
            exposure=PageExposure(answer),
        )
        with self._lock:
            if self._looking or self._looked >= answer.time:
                return  # what was written in between would not be told again
            self._drop(asked)
            if len(self._pages) >= MOST:
                self._drop(next(iter(self._pages)))
            self._asked.setdefault(request.member_id, set()).add(asked)
            self._pages[asked] = held
            if self._thread is None:
                self._thread = threading.Thread(target=self._follow, name="page-memory", daemon=True)
                self._thread.start()

    def forget(self, member_ids: Collection[str]) -> None:
        """These members did something: no page of theirs is at hand."""
        with self._lock:
            for member_id in member_ids:
                for asked in self._asked.pop(member_id, ()):
                    del self._pages[asked]

    def _drop(self, asked: Hashable) -> None:
        held = self._pages.pop(asked, None)
        if held is not None:
            of_member = self._asked[held.request.member_id]
            of_member.remove(asked)
            if not of_member:
                del self._asked[held.request.member_id]

    def _follow(self) -> None:
        cursors: Mapping[str, Cursor] = {}
        silent = False
        while not self._closing.wait(INTERVAL_S):
            with self._lock:
                members = list(self._asked)
                self._looking = bool(members)
            if not members:
                continue
            began = time.time_ns() // 1000
            try:
                cursors, found = self._written(members, cursors)
                self.forget(members if found is None else found)
                self._told_at, silent = began, False
            except Exception as failure:
                if not silent:
                    known = isinstance(failure, MatineeError)
                    logger.warning("no page is at hand: %s", failure, exc_info=not known)
                silent = True
            with self._lock:
                self._looking, self._looked = False, time.time_ns() // 1000
