"""Home pages that are shown again: until the member does something, or a page is too old.

Reading is one look into the store; writing waits for nobody: pages go through a bounded queue to a thread.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import asdict, fields
from hashlib import blake2b

import orjson

from matinee.errors import MatineeError, Unavailable
from matinee.schema import Decision
from matinee.serving.page_stores import Kept, PageStore
from matinee.serving.pages import HomePage, HomeRequest
from matinee.serving.versions import Live

CAPACITY = 1_000
"""Most pages waiting to be kept; later ones are not kept."""
BATCH = 100
QUIET_S = 1.0
"""A store that did not answer is left alone for so long."""
TOUCHED = 100_000
"""Members remembered as having done something."""

logger = logging.getLogger(__name__)


def slot_of(request: HomeRequest, version: Live, cell: str, *, now: int) -> str:
    """What a kept page is of, beside its member: surface, version, cell, profile and what is on offer.

    Args:
        now: microseconds.
    """
    profile = {
        "layout": asdict(request.layout),
        "filters": asdict(request.filters),
        "offer": version.titles.offer(request.filters, now).key,
    }
    digest = blake2b(orjson.dumps(profile, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()
    return f"{request.surface}|{version.name}|{cell}|{digest}"


def judge(page: HomePage, *, now: int, ttl_us: int, event_time: int | None, touched: int | None) -> Decision:
    """Whether a kept page may be shown as if it were new: action "show" or "make".

    Args:
        page: as it was kept.
        now: microseconds, as all times.
        event_time: the member's newest event in the feature store; None where the store knows none.
        touched: when an event of the member last came through this process; None: none is remembered.
    """
    age = now - page.made_at
    evidence = {"age_s": age / 1e6}
    if age >= ttl_us:
        return Decision(action="make", reason=f"{age / 1e6:.1f} s old", evidence=evidence)
    if touched is not None and touched >= page.made_at:
        return Decision(action="make", reason="an event came after it was made", evidence=evidence)
    if event_time != page.features_time:
        return Decision(action="make", reason="made from other events", evidence=evidence)
    return Decision(action="show", reason="nothing happened since it was made", evidence=evidence)


class PageCache:
    """Kept pages. Safe between threads.

    Args:
        store: where they lie.
        ttl_s: for how long a page is shown again; 0: never, it only stands in.

    Attributes:
        dropped: pages not kept, because the queue was full or the store did not answer.
    """

    def __init__(self, store: PageStore, *, ttl_s: float) -> None:
        self.dropped = 0
        self._store = store
        self._ttl_us = int(ttl_s * 1e6)
        self._touched: dict[str, int] = {}
        self._lock = threading.Lock()
        self._quiet_until = 0.0
        self._waiting: queue.Queue[Kept | None] = queue.Queue(CAPACITY)
        self._thread = threading.Thread(target=self._run, name="pages", daemon=True)
        self._thread.start()

    def touch(self, member_ids: Collection[str]) -> None:
        """These members did something: pages of theirs made before now are not shown as new."""
        now = time.time_ns() // 1000
        with self._lock:
            for member_id in member_ids:
                self._touched.pop(member_id, None)
                self._touched[member_id] = now
            while len(self._touched) > TOUCHED:
                del self._touched[next(iter(self._touched))]

    def untouched(self, member_id: str, since: int) -> bool:
        """Whether no event of the member came through this process at `since` (microseconds) or later."""
        return self._touched.get(member_id, -1) < since

    def fresh(self, member_id: str, slot: str, *, now: int, event_time: int | None) -> HomePage | None:
        """A page that may be shown as new; see `judge`."""
        page = self.kept(member_id, slot) if self._ttl_us else None
        if page is None:
            return None
        touched = self._touched.get(member_id)
        decision = judge(page, now=now, ttl_us=self._ttl_us, event_time=event_time, touched=touched)
        return page if decision.action == "show" else None

    def kept(self, member_id: str, slot: str) -> HomePage | None:
        """The page that is kept, however old; None also where the store does not answer."""
        if time.monotonic() < self._quiet_until:
            return None
        try:
            found = self._store.get(member_id, slot)
        except Unavailable as failure:
            self._quiet_until = time.monotonic() + QUIET_S
            logger.warning("no kept pages: %s", failure)
            return None
        return None if found is None else _decoded(found)

    def put(self, slot: str, page: HomePage) -> None:
        """Keep a page; returns at once."""
        try:
            self._waiting.put_nowait(encoded(slot, page))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Keep what waits, and end."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = [self._waiting.get()]
            while len(batch) < BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            ended = None in batch
            self._keep([page for page in batch if page is not None])
        self._store.close()

    def _keep(self, pages: list[Kept]) -> None:
        try:
            if pages:
                self._store.put(pages)
        except MatineeError as failure:
            self.dropped += len(pages)
            logger.warning("%d pages are not kept: %s", len(pages), failure)


def keep_all(store: PageStore, pages: Iterable[tuple[str, HomePage]]) -> int:
    """Keep pages now, each with its slot; returns how many.

    Raises:
        Unavailable: the store does not answer.
    """
    kept = [encoded(slot, page) for slot, page in pages]
    store.put(kept)
    return len(kept)


def encoded(slot: str, page: HomePage) -> Kept:
    """A page at rest: its facts as JSON, a newline, its rows."""
    head = orjson.dumps({name: getattr(page, name) for name in _FACTS} | {"rows": None})
    return Kept(page.member_id, slot, head + b"\n" + page.rows)


def _decoded(held: bytes) -> HomePage:
    head, _, rows = held.partition(b"\n")
    return HomePage(**orjson.loads(head) | {"rows": rows})


_FACTS = tuple(each.name for each in fields(HomePage) if each.name != "rows")
