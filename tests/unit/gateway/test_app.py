"""The whole application in this process: real recommender, feature store, registry and broker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pyarrow as pa
import pytest
import served_home

from matinee.config import Settings, load_settings
from matinee.events.dead_letters import read_all
from matinee.events.kafka import PartitionConsumer
from matinee.features.store import FeatureStore
from matinee.features.transforms import TITLE_POPULARITY
from matinee.gateway.assembly import assemble
from matinee.gateway.licences import TitleState
from matinee.gateway.messages import EventsAnswer, MemberFeatures, Recommendations, SplitState
from matinee.gateway.pages import Home, SimilarTitles
from matinee.gateway.rollouts import RolloutState
from matinee.schema import TIMESTAMP
from matinee.serving.place import Shadow
from matinee.serving.splits import Splits

HOME_WATCHED = served_home.watched()


@pytest.fixture(scope="module")
def api(home: Settings, bootstrap: str, call: Any) -> Iterator[Any]:
    client = call(assemble(home, bootstrap))
    yield client
    client.close()


@pytest.fixture(scope="module")
def lonely(home: Settings, call: Any) -> Any:
    """The API with a broker that is not there."""
    return call(assemble(home, "127.0.0.1:9"))


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, call: Any) -> Any:
    """The API on a home where nothing is yet."""
    settings = load_settings({"home": str(tmp_path_factory.mktemp("empty"))}, environment={})
    return call(assemble(settings, "127.0.0.1:9"))


def page(api: Any, member_id: str = "m1", **given: Any) -> dict[str, Any]:
    answer = api.post("/v1/recommendations", json={"member_id": member_id, **given})
    assert answer.status_code == 200, answer.text
    Recommendations.model_validate_json(answer.content)
    result: dict[str, Any] = answer.json()
    return result


def shown(answer: dict[str, Any]) -> list[int]:
    return [int(item["title_id"][1:]) for item in answer["items"]]


def event(**given: Any) -> dict[str, Any]:
    return {
        "type": "play",
        "member_id": "m1",
        "title_id": "t5",
        "event_time": time.time_ns() // 1000,
        **given,
    }


def messages(home: Settings, bootstrap: str, topic: str) -> list[dict[str, Any]]:
    reader = PartitionConsumer(home.kafka, bootstrap, topic, range(home.kafka.partitions), {})
    found: list[dict[str, Any]] = []
    while batch := reader.poll(10_000, 500):
        found += [json.loads(message.value) for message in batch]
    reader.close()
    return found


def test_a_member_gets_titles_they_did_not_watch(api: Any) -> None:
    answer = page(api, k=7)
    assert (answer["answer"], answer["reason"]) == ("personal", None)
    assert (answer["model_version"], answer["cell"]) == ("recommender/1", "v1")
    assert [item["position"] for item in answer["items"]] == list(range(7))
    assert not set(shown(answer)) & set(HOME_WATCHED[1])
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert all(
        sum(item["contributions"].values()) == pytest.approx(item["score"]) for item in answer["items"]
    )
    assert answer["items"][0]["name"] == f"Title {shown(answer)[0]}"
    assert answer["features_time"] == "2023-11-15T07:13:20.000000Z"


def test_watched_titles_come_when_asked_for(api: Any) -> None:
    answer = page(api, k=60, filters={"exclude_watched": False})
    assert set(shown(answer)) == set(range(60))
    assert len(page(api, k=60)["items"]) == 50


def test_filters_hold(api: Any) -> None:
    filters = {
        "max_maturity": 16,
        "languages": ["fr"],
        "genres": ["Drama", "Comedy"],
        "exclude_watched": False,
    }
    titles = shown(page(api, k=60, filters=filters))
    assert sorted(titles) == [i for i in range(30, 60) if i % 5 in (0, 1, 2) and i % 3 in (1, 2)]


def test_filters_that_nothing_passes_give_an_empty_page(api: Any) -> None:
    assert page(api, filters={"genres": ["Opera"]})["items"] == []


def test_an_unknown_member_gets_a_cold_start_and_is_told(api: Any) -> None:
    answer = page(api, "stranger", k=5)
    assert (answer["answer"], answer["reason"]) == ("cold_start", "unknown_member")
    counts = [sum(title in watched for watched in HOME_WATCHED) for title in range(60)]
    assert shown(answer) == sorted(range(60), key=lambda title: (-counts[title], title))[:5]


@pytest.mark.parametrize("k", [0, -1, 501, 10**9, 10**30])
def test_k_out_of_range_is_named_with_what_is_accepted(api: Any, k: int) -> None:
    answer = api.post("/v1/recommendations", json={"member_id": "m1", "k": k})
    assert answer.status_code == 422
    assert answer.json()["detail"] == f"k is {k}; accepted: 1 to 500"


def test_features_of_a_title_come_from_a_copy_that_follows_the_store(api: Any, home: Settings) -> None:
    assert api.get("/v1/titles/t5/features").json() == {"title_id": "t5", "views": []}
    row = dict.fromkeys(("plays_1d", "plays_7d", "plays_30d", "plays_all", "ratings_all"), 3)
    row |= {"title_id": "t5", "rating_mean_30d": None, "rating_mean_all": 4.5}
    columns = [
        pa.array([row[name]], TITLE_POPULARITY.field(name).type) for name in TITLE_POPULARITY.names[:-1]
    ]
    time_us = pa.array([served_home.START]).cast(TIMESTAMP)
    FeatureStore(home).write_online(
        "title_popularity", pa.table([*columns, time_us], schema=TITLE_POPULARITY)
    )
    deadline = time.monotonic() + 10
    while not (views := api.get("/v1/titles/t5/features").json()["views"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (view,) = views
    assert (view["view"], view["features"]["plays_7d"]) == ("title_popularity", 3)
    assert (view["features"]["rating_mean_all"], view["features"]["rating_mean_30d"]) == (4.5, None)
    assert 0 <= view["age_s"] < 10
    assert 'matinee_title_copy_age_seconds{view="title_popularity"}' in api.get("/metrics").text
    assert api.get("/v1/titles/none/features").status_code == 404


def test_features_of_a_member(api: Any) -> None:
    answer = api.get("/v1/members/m3/features")
    document = answer.json()
    MemberFeatures.model_validate(document)
    assert document["features"]["watched_title_ids"] == [f"t{title}" for title in HOME_WATCHED[3]]
    assert document["event_time"] == "2023-11-15T07:13:20.000000Z"


@pytest.mark.parametrize("member_id", ["nobody", "a%2Fb", "%F0%9F%8E%AC", "x" * 5000])
def test_features_of_an_unknown_member_are_404(api: Any, member_id: str) -> None:
    answer = api.get(f"/v1/members/{member_id}/features")
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("member '")


def test_one_event_is_taken_with_an_id_and_an_ingest_time(api: Any, home: Settings, bootstrap: str) -> None:
    before = time.time_ns() // 1000
    answer = api.post("/v1/events", json=event(session="one", ingest_time=1))
    assert answer.status_code == 202
    EventsAnswer.model_validate(answer.json())
    (event_id,) = answer.json()["event_ids"]
    (found,) = [m for m in messages(home, bootstrap, home.kafka.events_topic) if m["event_id"] == event_id]
    assert found["session"] == "one"
    assert found["ingest_time"] > "2024"
    assert before


def test_a_given_event_id_is_kept(api: Any) -> None:
    assert api.post("/v1/events", json=event(event_id="mine")).json()["event_ids"] == ["mine"]


def test_of_a_list_the_good_ones_are_kept_and_the_bad_ones_buried(
    api: Any, home: Settings, bootstrap: str
) -> None:
    posted = [event(event_id="g1"), event(event_id="b1", title_id="t999"), 5, event(event_id="g2")]
    answer = api.post("/v1/events", json=posted)
    assert answer.status_code == 207
    document = answer.json()
    assert (document["accepted"], document["rejected"], document["event_ids"]) == (2, 2, ["g1", "g2"])
    assert [result["accepted"] for result in document["results"]] == [True, False, False, True]
    assert "t999" in document["results"][1]["reason"]
    ids = [message["event_id"] for message in messages(home, bootstrap, home.kafka.events_topic)]
    assert (ids.count("g1"), ids.count("b1"), ids.count("g2")) == (1, 0, 1)
    reasons = {letter["reason"] for letter in read_all(home.kafka, bootstrap)}
    assert {result["reason"] for result in document["results"] if result["reason"]} <= reasons


BAD_EVENTS = {
    "unknown title": ({"title_id": "t999"}, "title_id"),
    "no title": ({"title_id": None}, "title_id"),
    "future": ({"event_time": time.time_ns() // 1000 + 10**12}, "event_time"),
    "far future": ({"event_time": "9999-12-31T00:00:00Z"}, "event_time"),
    "wrong type": ({"member_id": 5}, "member_id"),
    "unknown type": ({"type": "dance"}, "type"),
    "unknown field": ({"colour": "red"}, "colour"),
    "too many stars": ({"type": "rate", "value": 11}, "value"),
    "version": ({"schema_version": 99}, "schema_version"),
    "empty id": ({"event_id": ""}, "event_id"),
}


@pytest.mark.parametrize("case", BAD_EVENTS)
def test_a_bad_event_is_refused_by_name(api: Any, case: str) -> None:
    change, field = BAD_EVENTS[case]
    answer = api.post("/v1/events", json=event(**change))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in answer.json()["detail"]


def test_a_list_of_bad_events_is_refused_with_each_reason(api: Any) -> None:
    answer = api.post("/v1/events", json=[event(title_id="t99"), event(member_id="")])
    assert answer.status_code == 422
    assert [fault["field"] for fault in answer.json()["errors"]] == ["0", "1"]


@pytest.mark.parametrize("posted", [[], [{}] * 1001])
def test_a_list_of_the_wrong_length_is_refused(api: Any, posted: list[Any]) -> None:
    answer = api.post("/v1/events", json=posted)
    assert answer.status_code == 422
    assert f"{len(posted)} events; accepted: 1 to 1000" in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": NaN}', b"\xff", b"[" * 200_000, b'{"a": "\\ud800"}'])
def test_events_that_are_not_json_are_400_and_buried(
    api: Any, home: Settings, bootstrap: str, body: bytes
) -> None:
    answer = api.post("/v1/events", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "not JSON" in answer.json()["detail"]
    assert not body or answer.json()["detail"] in {x["reason"] for x in read_all(home.kafka, bootstrap)}


def test_an_answer_becomes_an_exposure(api: Any, home: Settings, bootstrap: str) -> None:
    answer = page(api, "m5", k=3, surface="row-2")
    deadline = time.monotonic() + 5
    found: list[dict[str, Any]] = []
    while not found and time.monotonic() < deadline:
        sent = messages(home, bootstrap, home.kafka.exposures_topic)
        found = [message for message in sent if message["exposure_id"] == answer["request_id"]]
    (exposure,) = found
    assert exposure["titles"]["title_id"] == [item["title_id"] for item in answer["items"]]
    told, scores = exposure["titles"]["score"], [item["score"] for item in answer["items"]]
    assert np.array_equal(np.float32(told), np.float32(scores))
    assert [item["position"] for item in answer["items"]] == [0, 1, 2]
    assert exposure["surface"] == "row-2"
    assert exposure["features"]["affinity[Comedy]"] == 4.0


def test_without_a_broker_events_wait_and_rankings_go_on(lonely: Any) -> None:
    start = time.monotonic()
    answer = lonely.post("/v1/events", json=event())
    assert time.monotonic() - start < 4
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    start = time.monotonic()
    for _ in range(20):
        page(lonely)
    assert time.monotonic() - start < 2
    assert lonely.post("/v1/events", json=event(title_id="t999")).status_code == 422


def test_a_home_with_nothing_in_it_says_so(empty: Any) -> None:
    assert empty.get("/healthz").json() == {"status": "ok"}
    for answer in (
        empty.get("/readyz"),
        empty.post("/v1/recommendations", json={"member_id": "m1"}),
        empty.get("/v1/members/m1/features"),
        empty.post("/v1/events", json=event()),
    ):
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.json()["detail"]


def test_ready_once_a_model_is_live_and_features_can_be_read(api: Any) -> None:
    assert api.get("/readyz").json() == {"status": "ok"}


def test_a_split_is_set_read_and_followed(api: Any) -> None:
    change = {"weights": {"1": 1, "2": 1}, "who": "ana", "why": "compare"}
    answer = api.put("/v1/splits/shelf", json=change)
    assert answer.status_code == 200, answer.text
    deadline = time.monotonic() + 5
    while api.get("/v1/splits/shelf").json()["applied"] != {"1": 0.5, "2": 0.5}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    cells = {m: page(api, m, surface="shelf")["cell"] for m in (f"m{i}" for i in range(40))}
    assert set(cells.values()) == {"v1", "v2"}
    assert all(page(api, m, surface="shelf")["cell"] == cell for m, cell in cells.items())
    assert {page(api, m)["cell"] for m in cells} == {"v1"}
    found = SplitState.model_validate(api.get("/v1/splits/shelf").json())
    assert (found.history[0].who, found.history[0].why) == ("ana", "compare")
    assert 'matinee_split_weight{surface="shelf",version="2"} 0.5' in api.get("/metrics").text


def test_segments_and_members_are_put_in_cells(api: Any, home: Settings) -> None:
    splits = Splits(home)
    signed = {"who": "ana", "why": "look at 2"}
    splits.set_segment("put", "country=SE", "v2", **signed)
    splits.set_segment("put", "new", "v2", **signed)
    splits.set_segment("put", "plays_7d>=1000000", "v2", **signed)
    splits.set_member("put", "m7", "v2", **signed)
    splits.close()
    deadline = time.monotonic() + 5
    while page(api, "m7", surface="put")["cell"] != "forced:v2":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert page(api, "m8", surface="put")["cell"] == "v1"
    swedish = page(api, "m8", surface="put", context={"country": "SE"})
    assert (swedish["cell"], swedish["model_version"]) == ("forced:v2", "recommender/2")
    assert page(api, "a stranger", surface="put")["cell"] == "forced:v2"
    rules = api.get("/v1/splits/put").json()["rules"]
    assert (rules["members"], rules["segments"]["new"]) == ({"m7": "v2"}, "v2")


def test_a_shadow_is_scored_and_logged_and_never_shown(api: Any, home: Settings, bootstrap: str) -> None:
    splits = Splits(home)
    splits.set_shadow("shaded", Shadow(version="2", share=1.0), who="ana", why="look at 2")
    deadline = time.monotonic() + 10
    found: list[dict[str, Any]] = []
    answers: dict[str, dict[str, Any]] = {}
    while not found:
        assert time.monotonic() < deadline
        answer = page(api, "m3", surface="shaded")
        assert (answer["cell"], answer["model_version"]) == ("v1", "recommender/1")
        answers[answer["request_id"]] = answer
        sent = messages(home, bootstrap, home.kafka.exposures_topic)
        found = [message for message in sent if message["shadow_of"] in answers]
    splits.set_shadow("shaded", None, who="ana", why="seen")
    splits.close()
    assert (found[0]["cell"], found[0]["model_version"]) == ("shadow", "recommender/2")
    assert found[0]["exposure_id"] not in answers
    assert found[0]["member_id"] == "m3"
    assert "matinee_shadows_made_total" in api.get("/metrics").text


def test_a_rollout_is_asked_for_shown_and_stopped(api: Any) -> None:
    asked = {"candidate": "2", "surface": "tried", "who": "ana", "why": "try 2"}
    answer = api.post("/v1/rollouts", json=asked)
    assert answer.status_code == 201, answer.text
    started = RolloutState.model_validate(answer.json())
    assert (started.status, started.baseline, started.plan["name"]) == ("waiting", "1", "canary")
    assert api.post("/v1/rollouts", json=asked).status_code == 422
    assert api.get("/v1/rollouts").json()["rollouts"][0] == answer.json()
    assert api.get(f"/v1/rollouts/{started.id}").json() == answer.json()
    stopped = api.post(f"/v1/rollouts/{started.id}/stop", json={"who": "bo", "why": "enough"}).json()
    assert (stopped["status"], stopped["live"]) == ("stop", False)
    assert (stopped["decisions"][0]["who"], stopped["decisions"][0]["reason"]) == ("bo", "enough")
    again = api.post(f"/v1/rollouts/{started.id}/stop", json={"who": "bo", "why": "enough"})
    assert (again.status_code, again.json()["detail"]) == (422, f"rollout {started.id} is over: stop")


def test_licences_are_set_shown_and_taken_back(api: Any) -> None:
    signed = {"who": "ana", "why": "contract 7"}
    window = {"country": "SE", "available_from": "2026-01-01", "available_until": None}
    answer = api.put("/v1/licences", json={"windows": [{"title_id": "t3", **window}], **signed})
    assert (answer.status_code, answer.json()["windows"]) == (200, 1)
    assert api.get("/v1/licences").json() == answer.json()
    assert TitleState(**api.get("/v1/licences/t3").json()).windows[0].country == "SE"
    nowhere = api.put("/v1/licences/t3", json={"windows": [], **signed}).json()
    assert [each["available_until"] for each in nowhere["windows"]] == ["1970-01-01T00:00:00+00:00"]
    again = api.put("/v1/licences/t3", json={"windows": None, **signed}).json()
    assert [each["available_from"] for each in again["windows"]] == ["2026-01-01T00:00:00+00:00"]
    assert [each["windows"] for each in again["history"]] == [None, 1]
    assert api.put("/v1/licences", json={"windows": [], **signed}).json()["windows"] == 0


@pytest.mark.parametrize(
    ("window", "told"),
    [
        ({"country": "Sweden"}, "country"),
        ({"available_from": "soon"}, "'soon'"),
        ({"available_from": "2026-02-01", "available_until": "2026-01-01"}, "title 't3'"),
    ],
)
def test_a_window_that_says_nothing_is_refused(api: Any, window: dict[str, str], told: str) -> None:
    answer = api.put("/v1/licences/t3", json={"windows": [window], "who": "ana", "why": "contract 7"})
    assert answer.status_code == 422
    assert told in answer.text
    assert api.get("/v1/licences/t3").json()["windows"] == []


@pytest.mark.parametrize(
    ("change", "status", "expected"),
    [
        ({"candidate": "77"}, 404, "77"),
        ({"candidate": "1"}, 422, "serves surface tried already"),
        ({"plan": "/etc/passwd"}, 422, "accepted: a plan, or one of canary"),
        ({"plan": {"name": "p", "steps": [], "judge": {}}}, 422, "plan: steps"),
        ({"why": ""}, 422, "why"),
        ({"colour": 1}, 422, "colour"),
    ],
)
def test_a_rollout_that_cannot_be_is_refused(
    api: Any, change: dict[str, Any], status: int, expected: str
) -> None:
    asked = {"candidate": "2", "surface": "tried", "who": "ana", "why": "try"} | change
    answer = api.post("/v1/rollouts", json=asked)
    assert answer.status_code == status
    assert expected in answer.json()["detail"]


@pytest.mark.parametrize("number", ["999", "0", "x", "1" * 30])
def test_a_rollout_that_is_not_there(api: Any, number: str) -> None:
    assert api.get(f"/v1/rollouts/{number}").status_code == (404 if number == "999" else 422)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"weights": {"77": 1}}, "version 77"),
        ({"weights": {"1": -1}}, "weight of version 1 is -1"),
        ({"weights": {"1": 0}}, "must be above 0"),
        ({"why": ""}, "why"),
        ({"who": "  "}, "who"),
    ],
)
def test_a_bad_split_changes_nothing(api: Any, home: Settings, change: dict[str, Any], expected: str) -> None:
    answer = api.put("/v1/splits/other", json={"weights": {"1": 1}, "who": "a", "why": "b"} | change)
    assert answer.status_code == 422
    assert expected in answer.json()["detail"]
    splits = Splits(home)
    assert splits.history("other") == []
    splits.close()


def test_metrics_count_what_happened(api: Any) -> None:
    page(api)
    text = api.get("/metrics").text
    assert 'matinee_requests_total{method="POST",route="/v1/recommendations",status="200"}' in text
    assert "matinee_exposures_dropped_total 0.0" in text
    assert 'matinee_split_weight{surface="*",version="1"} 1.0' in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/recommendations", 405),
        ("DELETE", "/v1/events", 405),
        ("GET", "/v2", 404),
        ("GET", "/v1/", 404),
    ],
)
def test_what_is_not_there(api: Any, method: str, path: str, status: int) -> None:
    answer = api.request(method, path)
    assert answer.status_code == answer.json()["status"] == status


def test_oversized_and_untyped_bodies(api: Any, home: Settings) -> None:
    large = b"[" + b" " * home.serving.max_body_bytes + b"]"
    for path in ("/v1/recommendations", "/v1/events"):
        assert api.post(path, content=large, headers={"content-type": "application/json"}).status_code == 413
        assert api.post(path, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


def test_openapi_documents_every_route_and_problem(api: Any) -> None:
    document = api.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/recommendations",
        "/v1/events",
        "/v1/members/{member_id}/features",
        "/v1/members/{member_id}/home",
        "/v1/titles/{title_id}/features",
        "/v1/titles/{title_id}/similar",
        "/v1/splits/{surface}",
        "/v1/licences",
        "/v1/licences/{title_id}",
        "/v1/rollouts",
        "/v1/rollouts/{rollout}",
        "/v1/rollouts/{rollout}/stop",
        "/healthz",
        "/readyz",
        "/metrics",
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["description"], path
            for status, response in operation["responses"].items():
                kinds = set(response["content"])
                assert kinds == {"application/problem+json"} if status >= "400" else kinds, (path, status)
    body = document["paths"]["/v1/events"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body["oneOf"][0]["$ref"] == "#/components/schemas/EventBody"
    defined = document["components"]["schemas"]
    assert {"EventBody", "EventType", "Problem", "Recommendations", "SplitState"} <= set(defined)
    assert "HTTPValidationError" not in defined
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert reference in defined


def home_page(api: Any, member_id: str = "m1", **query: Any) -> dict[str, Any]:
    answer = api.get(f"/v1/members/{member_id}/home?{urlencode(query, doseq=True)}")
    assert answer.status_code == 200, answer.text
    Home.model_validate_json(answer.content)
    result: dict[str, Any] = answer.json()
    return result


def titles_of(page: dict[str, Any]) -> list[int]:
    return [int(item["title_id"][1:]) for row in page["rows"] for item in row["items"]]


def test_a_home_page_has_rows_with_reasons_and_no_title_twice(api: Any) -> None:
    found = home_page(api, per_row=6)
    assert (found["answer"], found["fallback"]) == ("personal", None)
    assert (found["model_version"], found["cell"]) == ("recommender/1", "v1")
    kinds = [row["kind"] for row in found["rows"]]
    assert kinds[0] == "top_picks"
    assert kinds.count("because_you_watched") == 3
    titles = titles_of(found)
    assert len(titles) == len(set(titles))
    assert not set(titles) & set(HOME_WATCHED[1])
    because = next(row for row in found["rows"] if row["kind"] == "because_you_watched")
    assert because["reason"]["title_id"] == f"t{HOME_WATCHED[1][-1]}"
    assert because["title"] == f"Because You Watched Title {HOME_WATCHED[1][-1]}"
    positions = [item["position"] for row in found["rows"] for item in row["items"]]
    assert positions == list(range(len(positions)))


def test_titles_begun_and_not_rated_come_first(api: Any) -> None:
    row = home_page(api, "m2")["rows"][0]
    assert row["kind"] == "continue_watching"
    assert [item["title_id"] for item in row["items"]] == [f"t{HOME_WATCHED[2][-1]}"]


def test_a_childs_page_holds_its_rating_and_languages(api: Any) -> None:
    titles = titles_of(home_page(api, max_maturity=7, languages=["en"]))
    assert titles
    assert all(i % 5 in (0, 1) and i < 30 for i in titles)


@pytest.mark.parametrize("query", ["rows=0", "per_row=101", "diversity=2", "max_maturity=x", "surface="])
def test_a_page_out_of_range_is_refused(api: Any, query: str) -> None:
    answer = api.get(f"/v1/members/m1/home?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["detail"]


def test_titles_like_a_title(api: Any) -> None:
    answer = api.get("/v1/titles/t4/similar?k=4&languages=en")
    SimilarTitles.model_validate_json(answer.content)
    document = answer.json()
    assert (document["by"], document["fallback"], document["model_version"]) == (
        "content",
        None,
        "recommender/1",
    )
    assert all(int(item["title_id"][1:]) % 3 == 1 for item in document["items"])
    assert len(document["items"]) == 4
    assert api.get("/v1/titles/t999/similar").status_code == 404
    assert api.get("/v1/titles/t4/similar?k=0").status_code == 422
