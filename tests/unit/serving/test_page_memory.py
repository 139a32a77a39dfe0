"""Pages at hand: for as long as the store says, lately enough, that nothing was written of their members."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

import pytest

from matinee.errors import Unavailable
from matinee.features.rows import Cursor
from matinee.serving import page_memory
from matinee.serving.page_memory import Held, PageMemory
from matinee.serving.pages import HomeAnswer, HomePage, HomeRequest
from matinee.serving.versions import Plan

PLAN = Plan(model="recommender")
PAGE = HomePage(
    member_id="m",
    surface="home",
    model_version="recommender/1",
    cell="v1",
    answer="personal",
    reason=None,
    made_at=0,
    features_time=None,
    fallback=None,
    rows=b"[]",
)


class Store:
    """Tells what the test wrote, one batch a question."""

    def __init__(self) -> None:
        self.batches: list[set[str] | None] = []
        self.asked: list[tuple[list[str], Mapping[str, Cursor]]] = []
        self.down = False
        self.free = threading.Event()
        self.free.set()

    def written(
        self, members: Collection[str], since: Mapping[str, Cursor]
    ) -> tuple[Mapping[str, Cursor], set[str] | None]:
        self.asked.append((list(members), since))
        self.free.wait(10)
        if self.down:
            raise Unavailable("the store is down")
        found = self.batches.pop(0) if self.batches else set()
        return {"view": Cursor("g", 0, len(self.asked))}, found


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(page_memory, "INTERVAL_S", 0.01)
    return Store()


@pytest.fixture
def pages(store: Store) -> Iterator[PageMemory]:
    made = PageMemory(store.written, look_s=0.2, ttl_s=60)
    yield made
    store.free.set()
    made.close()


def now() -> int:
    return time.time_ns() // 1000


def put(
    pages: PageMemory,
    asked: str,
    member_id: str = "m",
    *,
    age_s: float = 0.0,
    offered_s: float = 60.0,
    plan: Plan = PLAN,
) -> None:
    page = replace(PAGE, member_id=member_id, made_at=now() - int(age_s * 1e6))
    answer = HomeAnswer(request_id="r", page=page, time=now(), fallback=None)
    until = now() + int(offered_s * 1e6)
    pages.put(asked, HomeRequest(member_id=member_id), answer, plan=plan, until=until)


def get(pages: PageMemory, asked: str, plan: Plan = PLAN) -> Held | None:
    return pages.get(asked, plan=plan, now=now())


def wait(condition: object) -> None:
    deadline = time.monotonic() + 5
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.002)


def keep(pages: PageMemory, asked: str, member_id: str = "m", **given: float) -> Held:
    """Put a page until it stays: one that is put while the store is asked is not taken."""
    deadline = time.monotonic() + 5
    while True:
        put(pages, asked, member_id, **given)
        time.sleep(0.03)
        if (held := get(pages, asked)) is not None:
            return held
        assert time.monotonic() < deadline


def test_a_page_stays_until_the_store_tells_of_its_member(pages: PageMemory, store: Store) -> None:
    held = keep(pages, "/m")
    keep(pages, "/n", "n")
    time.sleep(0.1)
    assert get(pages, "/m") is held
    store.batches.append({"m", "stranger"})
    wait(lambda: get(pages, "/m") is None)
    assert get(pages, "/n")
    store.batches.append(None)
    wait(lambda: get(pages, "/n") is None)


def test_each_question_goes_on_where_the_last_one_ended(pages: PageMemory, store: Store) -> None:
    keep(pages, "/m")
    wait(lambda: len(store.asked) > 5)
    assert store.asked[0] == (["m"], {})
    for count, (members, since) in enumerate(store.asked[1:5], start=1):
        assert (members, since["view"].change) == (["m"], count)


def test_while_the_store_is_silent_nothing_is_at_hand(pages: PageMemory, store: Store) -> None:
    keep(pages, "/m")
    store.down = True
    wait(lambda: get(pages, "/m") is None)
    store.down = False
    wait(lambda: get(pages, "/m") is not None)


def test_what_was_read_while_the_store_was_asked_is_not_taken(pages: PageMemory, store: Store) -> None:
    keep(pages, "/m")
    store.free.clear()
    count = len(store.asked)
    wait(lambda: len(store.asked) > count)
    answer = HomeAnswer(request_id="r", page=replace(PAGE, made_at=now()), time=now(), fallback=None)
    for _ in range(2):
        pages.put("/late", HomeRequest(member_id="m"), answer, plan=PLAN, until=answer.time + 60_000_000)
        assert get(pages, "/late") is None
        store.free.set()
        wait(lambda: len(store.asked) > count + 2)


def test_the_end_of_an_offer_ends_it(pages: PageMemory) -> None:
    keep(pages, "/m")
    held = keep(pages, "/short", offered_s=0.5)
    wait(lambda: now() >= held.until)
    assert get(pages, "/short") is None
    wait(lambda: get(pages, "/m") is not None)


def test_another_plan_and_age_end_it(pages: PageMemory) -> None:
    keep(pages, "/m")
    assert get(pages, "/m", replace(PLAN)) is None
    assert get(pages, "/m") is None, "it is let go"
    put(pages, "/old", age_s=61)
    assert "/old" not in pages._pages
    keep(pages, "/old", age_s=59.5)
    wait(lambda: get(pages, "/old") is None)


def test_forgotten_members_leave_nothing_behind(pages: PageMemory) -> None:
    for asked, member_id in (("/1", "m"), ("/2", "m"), ("/3", "n")):
        keep(pages, asked, member_id)
    pages.forget(["m", "stranger"])
    assert list(pages._pages) == ["/3"]
    assert pages._asked == {"n": {"/3"}}


def test_the_first_page_gives_way_where_there_are_too_many(
    pages: PageMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_memory, "MOST", 3)
    for asked in ("/1", "/2", "/3", "/1", "/4"):
        keep(pages, asked, f"m{asked}")
    assert list(pages._pages) == ["/3", "/1", "/4"]
    assert set(pages._asked) == {"m/3", "m/1", "m/4"}


def test_without_a_look_nothing_is_at_hand_and_nobody_is_asked(store: Store) -> None:
    off = PageMemory(store.written, look_s=0, ttl_s=60)
    put(off, "/m")
    off.close()
    assert not off._pages
    assert not store.asked


def test_a_defect_leaves_nothing_at_hand_and_the_thread_alive(
    pages: PageMemory, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    keep(pages, "/m")
    store.batches.append(3)  # type: ignore[arg-type]
    wait(lambda: "no page is at hand" in caplog.text)
    assert "TypeError" in caplog.text
    keep(pages, "/n", "n")
