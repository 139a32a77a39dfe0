"""Exposures leave the request's path at once, wait for the broker, and are counted when lost."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import Any

import orjson
import pytest

from matinee.errors import Unavailable
from matinee.monitoring import exposures as monitoring
from matinee.schema import Candidate, Ranking
from matinee.serving.exposures import Again, ExposureLog, PageExposure, message
from matinee.serving.pages import HomeAnswer, HomePage
from matinee.serving.recommender import Answer


class Broker:
    """Takes messages while it is up."""

    def __init__(self, *, up: bool) -> None:
        self.up = threading.Event()
        if up:
            self.up.set()
        self.taken: list[tuple[str, str, bytes]] = []

    def send_wait(self, topic: str, keys: list[str], payloads: list[bytes], timeout_s: float) -> None:
        if not self.up.is_set():
            raise Unavailable("broker is down")
        self.taken += [(topic, key, payload) for key, payload in zip(keys, payloads, strict=True)]


def answer(request_id: str = "r1") -> Answer:
    ranking = Ranking(
        request_id=request_id,
        member_id="m1",
        surface="home",
        model_version="recommender/3",
        cell="v3",
        answer="personal",
        candidates=[Candidate(title_id="t1", score=2.0), Candidate(title_id="t2", score=1.0)],
    )
    return Answer(
        ranking=ranking,
        names=["One", "Two"],
        reason=None,
        time=1_000_000,
        features_time=900_000,
        features={"plays_1h": 2.0, "affinity[Drama]": float("nan")},
    )


def home_page(member_id: str, rows: list[dict[str, Any]]) -> HomePage:
    return HomePage(
        member_id=member_id,
        surface="home",
        model_version="recommender/3",
        cell="v3",
        answer="personal",
        reason=None,
        made_at=500_000,
        features_time=400_000,
        fallback=None,
        rows=orjson.dumps(rows),
    )


def wait(condition: object) -> None:
    deadline = time.monotonic() + 5
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_message_says_what_was_shown_and_why() -> None:
    key, payload = message(answer(), 12.5)
    assert key == "m1"
    assert json.loads(payload) == {
        "exposure_id": "r1",
        "time": 1_000_000,
        "member_id": "m1",
        "surface": "home",
        "model_version": "recommender/3",
        "cell": "v3",
        "answer": "personal",
        "made_at": 1_000_000,
        "fallback": None,
        "titles": {"title_id": ["t1", "t2"], "score": [2.0, 1.0]},
        "features": {"plays_1h": 2.0, "affinity[Drama]": None},
        "latency_ms": 12.5,
        "shadow_of": None,
    }


def test_a_home_page_is_told_with_its_rows() -> None:
    shown = [
        {"kind": "top_picks", "reason": {"title_id": None, "genre": None}, "items": items(0, "t1", "t2")},
        {"kind": "genre", "reason": {"title_id": None, "genre": "Drama"}, "items": items(2, "t3")},
    ]
    page = home_page("m1", shown)
    key, payload = message(HomeAnswer(request_id="r2", page=page, time=700_000, fallback="cached"), 1.0)
    found = json.loads(payload)
    assert (key, found["time"], found["made_at"], found["fallback"]) == ("m1", 700_000, 500_000, "cached")
    assert found["titles"] == {"title_id": ["t1", "t2", "t3"], "score": [1.0, 1.0, 1.0]}
    assert found["rows"] == [
        {"kind": "top_picks", "because": None, "first": 0, "count": 2},
        {"kind": "genre", "because": "Drama", "first": 2, "count": 1},
    ]
    read = monitoring.parse(payload)
    assert read["rows"] == found["rows"]
    assert [(title["title_id"], title["position"]) for title in read["titles"]] == [
        ("t1", 0),
        ("t2", 1),
        ("t3", 2),
    ]


def test_a_page_given_again_is_told_as_if_it_were_the_first_time() -> None:
    rows = [{"kind": "genre", "reason": {"title_id": None, "genre": "Drama"}, "items": items(0, "t1", "é")}]
    page = home_page('m"1', rows)
    first = HomeAnswer(
        request_id="r1", page=page, time=600_000, fallback=None, features={"a": 0.5, "b": float("nan")}
    )
    exposure = PageExposure(first)
    for request_id, time_us, latency_ms in (("r1", 600_000, 0.25), ("r2", 900_000, 1e-05)):
        key, payload = message(Again(exposure, request_id, time_us), latency_ms)
        whole = message(replace(first, request_id=request_id, time=time_us), latency_ms)
        assert (key, json.loads(payload)) == (whole[0], json.loads(whole[1]))
        found = monitoring.parse(payload)
        assert (found["exposure_id"], found["time"], found["latency_ms"]) == (request_id, time_us, latency_ms)


def items(first: int, *title_ids: str) -> list[dict[str, Any]]:
    return [
        {"title_id": title_id, "name": title_id, "position": first + place, "score": 1.0}
        for place, title_id in enumerate(title_ids)
    ]


def test_close_sends_what_waits() -> None:
    broker = Broker(up=True)
    log = ExposureLog(broker, "exposures")
    for i in range(50):
        log.put(answer(str(i)), latency_ms=1.0)
    log.close()
    assert [json.loads(payload)["exposure_id"] for _, _, payload in broker.taken] == [
        str(i) for i in range(50)
    ]
    assert (log.sent, log.dropped) == (50, 0)


def test_a_broker_that_comes_back_gets_what_waited() -> None:
    broker = Broker(up=False)
    log = ExposureLog(broker, "exposures", capacity=10)
    log.put(answer("first"), latency_ms=1.0)
    wait(lambda: not log._waiting)
    start = time.perf_counter()
    for i in range(15):
        log.put(answer(str(i)), latency_ms=1.0)
    assert time.perf_counter() - start < 0.2
    assert log.dropped == 5
    broker.up.set()
    wait(lambda: log.sent == 11)
    log.close()
    assert log.dropped == 5


@pytest.mark.parametrize("capacity", [3, 100])
def test_close_without_a_broker_ends_soon_and_counts(capacity: int) -> None:
    log = ExposureLog(Broker(up=False), "exposures", capacity=capacity)
    for i in range(20):
        log.put(answer(str(i)), latency_ms=1.0)
    start = time.perf_counter()
    log.close()
    assert time.perf_counter() - start < 2
    assert (log.sent, log.dropped) == (0, 20)
