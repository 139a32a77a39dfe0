"""Kept pages: the rule that shows one again, and the stores they lie in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import redis_server
import served_home
from hypothesis import given
from hypothesis import strategies as st

from matinee.config import Settings
from matinee.errors import ConfigError, Unavailable
from matinee.models import popularity
from matinee.models.bundle import Bundle
from matinee.serving.availability import WINDOW_SCHEMA, Listed
from matinee.serving.page_cache import PageCache, encoded, judge, keep_all, slot_of
from matinee.serving.page_stores import CassandraPages, Kept, PageStore, RedisPages, SqlitePages, page_store
from matinee.serving.pages import HomePage, HomeRequest
from matinee.serving.rank import Filters, Titles
from matinee.serving.versions import Live

PAGE = HomePage(
    member_id="m\n1",
    surface="home",
    model_version="recommender/1",
    cell="v1",
    answer="personal",
    reason=None,
    made_at=1_000,
    features_time=900,
    fallback=None,
    rows=b'[{"kind":"genre\\n"}]',
)

times = st.integers(0, 5_000)


@given(times, times, st.one_of(st.none(), times), st.one_of(st.none(), times), st.one_of(st.none(), times))
def test_a_page_is_shown_only_if_nothing_happened_since(
    made_at: int, waited: int, features_time: int | None, event_time: int | None, touched: int | None
) -> None:
    page = replace(PAGE, made_at=made_at, features_time=features_time)
    decision = judge(page, now=made_at + waited, ttl_us=2_000, event_time=event_time, touched=touched)
    good = waited < 2_000 and event_time == features_time and (touched is None or touched < page.made_at)
    assert decision.action == ("show" if good else "make")
    assert decision.reason


def live(name: str, *withdrawn: str) -> Live:
    catalogue = served_home.catalogue()
    count = len(withdrawn)
    nowhere = [withdrawn, [None] * count, [None] * count, [0] * count]
    listed = Listed(number=count, windows=pa.table(nowhere, schema=WINDOW_SCHEMA))
    model = popularity.SPEC.model(popularity.SPEC.presets["default"])
    bundle = Bundle(name="popularity", model=model, catalogue=catalogue, positions={})
    return Live(name=name, bundle=bundle, titles=Titles(catalogue, lambda: listed))


def test_each_profile_version_and_cell_has_its_own_slot() -> None:
    request = HomeRequest(member_id="m")
    child = replace(request, filters=Filters(max_maturity=7))
    slots = {
        slot_of(request, live("r/1"), "v1", now=1),
        slot_of(request, live("r/2"), "v1", now=1),
        slot_of(request, live("r/1"), "canary", now=1),
        slot_of(request, live("r/1", "t5"), "v1", now=1),
        slot_of(child, live("r/1"), "v1", now=1),
        slot_of(replace(request, surface="kids"), live("r/1"), "v1", now=1),
    }
    assert len(slots) == 6
    assert slot_of(replace(request), live("r/1"), "v1", now=1) in slots


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with redis_server.running(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture(
    params=["sqlite", pytest.param("redis", marks=redis_server.needs_redis), "cassandra"],
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[float], PageStore]]:
    """Opens the store with a time to keep; Cassandra's is the one that MATINEE_TEST_CASSANDRA names."""
    opened: list[PageStore] = []

    def open_(keep_s: float) -> PageStore:
        found: PageStore
        if request.param == "sqlite":
            found = SqlitePages(tmp_path / "home" / "pages.db", keep_s=keep_s)
        elif request.param == "redis":
            found = RedisPages(f"127.0.0.1:{request.getfixturevalue('redis_port')}", keep_s=keep_s)
        else:
            pytest.importorskip("cassandra", reason="cassandra-driver is not installed")
            address = os.environ.get("MATINEE_TEST_CASSANDRA")
            if not address:
                pytest.skip("MATINEE_TEST_CASSANDRA names no server: host:port,keyspace=NAME")
            found = CassandraPages(address, keep_s=keep_s)
        opened.append(found)
        return found

    yield open_
    for each in opened:
        each.close()


def test_a_store_keeps_the_last_page_of_each_slot(store: Callable[[float], PageStore]) -> None:
    pages = store(60)
    assert pages.get("m", "nowhere") is None
    odd = "m:\udcff|é"
    pages.put([Kept("m", "a", b"1"), Kept("m", "b", b"2"), Kept(odd, "a", b"\x00\xff")])
    pages.put([Kept("m", "a", b"3")])
    assert [pages.get("m", "a"), pages.get("m", "b"), pages.get(odd, "a")] == [b"3", b"2", b"\x00\xff"]


def test_a_store_lets_old_pages_go(store: Callable[[float], PageStore]) -> None:
    pages = store(0.001)
    pages.put([Kept("m", "old", b"1")])
    time.sleep(0.01)
    assert pages.get("m", "old") is None


def test_sqlite_drops_old_pages_and_opens_again(tmp_path: Path) -> None:
    path = tmp_path / "pages.db"
    first = SqlitePages(path, keep_s=-1)
    first.put([Kept("m", "a", b"1")])
    assert first._connection().execute("SELECT count(*) FROM pages").fetchone() == (0,)
    first.close()
    keep_all(SqlitePages(path, keep_s=60), [("b", PAGE)])
    assert SqlitePages(path, keep_s=60).get(PAGE.member_id, "b") == encoded("b", PAGE).page


def test_pages_come_back_as_they_were_kept(tmp_path: Path) -> None:
    cache = PageCache(SqlitePages(tmp_path / "pages.db", keep_s=60), ttl_s=60)
    cache.put("a", PAGE)
    cache.close()
    again = PageCache(SqlitePages(tmp_path / "pages.db", keep_s=60), ttl_s=60)
    assert again.kept(PAGE.member_id, "a") == PAGE
    assert again.fresh(PAGE.member_id, "a", now=2_000, event_time=900) == PAGE
    assert again.fresh(PAGE.member_id, "a", now=2_000, event_time=901) is None
    again.close()


class Down:
    """A store that does not answer."""

    def __init__(self) -> None:
        self.asked = 0

    def get(self, member_id: str, slot: str) -> bytes | None:
        self.asked += 1
        raise Unavailable("pages are down")

    def put(self, pages: object) -> None:
        raise Unavailable("pages are down")

    def close(self) -> None: ...


def test_a_store_that_is_down_costs_one_look_a_second_and_the_pages() -> None:
    down = Down()
    cache = PageCache(down, ttl_s=60)
    for _ in range(5):
        assert cache.kept("m", "a") is None
    assert down.asked == 1
    cache.put("a", PAGE)
    cache.close()
    assert cache.dropped == 1


def test_redis_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"kept pages in redis at 127\.0\.0\.1:1"):
        RedisPages("127.0.0.1:1", keep_s=1).get("m", "a")


def test_the_setting_names_the_store(settings: Settings) -> None:
    def serving(**given: object) -> Settings:
        values = settings.model_dump() | {"serving": given}
        return Settings.model_validate(values)

    assert isinstance(page_store(settings), SqlitePages)
    assert page_store(serving(page_cache="none")) is None
    assert isinstance(page_store(serving(page_cache="redis", page_cache_address="h:1")), RedisPages)
    with pytest.raises(ConfigError, match=r"page_cache is redis.*host:port"):
        page_store(serving(page_cache="redis"))
