"""The API on a real Ray Serve, over HTTP."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest
import served_home

from matinee.config import Settings, load_settings
from matinee.errors import ConfigError
from matinee.events.broker import LocalBroker
from matinee.events.kafka import ensure_topics
from matinee.experiments.allocate import allocate
from matinee.gateway import deployment
from matinee.serving.licences import Licences, windows_of
from matinee.serving.pages import HomeRequest
from matinee.serving.precompute import precompute

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

NAME = "test-api"
MEMBERS = [f"m{i}" for i in range(served_home.MEMBERS)]


class Api:
    """A client with one connection a thread."""

    def __init__(self, settings: Settings, url: str, broker: LocalBroker) -> None:
        self.settings = settings
        self.url = url
        self.broker = broker
        self._address = urlsplit(url)
        self._local = threading.local()

    def call(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json"
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and decoded body. Bytes and iterators of bytes are sent as they are."""
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(self._address.netloc, timeout=30)
        connection = self._local.connection
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
        headers = {"content-type": kind} if body is not None and kind else {}
        connection.request(method, self._address.path + path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        given = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, given, json.loads(data) if "json" in given["content-type"] else data.decode()

    def cell(self, member_id: str, surface: str) -> str:
        status, _, page = self.call(
            "POST", "/v1/recommendations", {"member_id": member_id, "surface": surface}
        )
        assert status == 200, page
        return str(page["cell"])


@pytest.fixture(scope="module")
def api(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    settings = load_settings({"home": str(tmp_path_factory.mktemp("home"))}, environment={})
    served_home.make(settings)
    with LocalBroker(tmp_path_factory.mktemp("broker") / "log") as broker:
        ensure_topics(settings.kafka, broker.bootstrap)
        yield Api(settings, deployment.start(settings, broker.bootstrap, name=NAME), broker)
        deployment.stop(NAME)


def event(**given: Any) -> dict[str, Any]:
    now = time.time_ns() // 1000
    return {"type": "play", "member_id": "m1", "title_id": "t5", "event_time": now, **given}


def test_it_serves_on_loopback_and_is_ready(api: Api) -> None:
    assert api.url.startswith("http://127.0.0.1:")
    assert api.call("GET", "/readyz")[0] == 200
    assert api.call("GET", "/openapi.json")[2]["info"]["title"] == "Matinee"


def test_a_request_is_answered_by_the_champion(api: Api) -> None:
    status, _, page = api.call("POST", "/v1/recommendations", {"member_id": "m2", "k": 5})
    assert status == 200
    assert (page["answer"], page["model_version"], len(page["items"])) == ("personal", "recommender/1", 5)


def test_a_precomputed_home_page_is_shown_until_its_member_does_something(api: Api) -> None:
    figures = precompute(api.settings, MEMBERS, HomeRequest(member_id=""))
    assert figures.kept == figures.members == len(MEMBERS)
    status, _, page = api.call("GET", "/v1/members/m7/home")
    assert (status, page["fallback"], page["answer"]) == (200, None, "personal")
    assert page["age_s"] > 0
    made_at = page["made_at"]
    assert api.call("GET", "/v1/members/m7/home")[2]["made_at"] == made_at
    assert api.call("POST", "/v1/events", event(member_id="m7"))[0] == 202
    newer = api.call("GET", "/v1/members/m7/home")[2]
    assert (newer["made_at"] > made_at, newer["age_s"]) == (True, 0)


def test_a_title_is_gone_where_its_licence_ends_within_a_second(api: Api) -> None:
    path = "/v1/members/m4/home?context=country%3D"
    licences = Licences(api.settings)

    def shown(country: str) -> bool:
        status, _, page = api.call("GET", path + country)
        assert status == 200, page
        return any(item["title_id"] == "t1" for row in page["rows"] for item in row["items"])

    assert shown("SE")
    windows = windows_of("t1", ["FR"], begin=None, end=None)
    licences.set("t1", windows, who="test", why="it ends in Sweden")
    start = time.monotonic()
    while shown("SE"):
        assert time.monotonic() - start < 10  # the promise is one second; the machine may be busy
    assert shown("FR")
    licences.clear("t1", who="test", why="clean up")
    licences.close()


def test_titles_like_a_title(api: Api) -> None:
    status, _, answer = api.call("GET", "/v1/titles/t4/similar?k=3")
    assert (status, answer["by"], len(answer["items"])) == (200, "content", 3)


def test_an_event_is_taken(api: Api) -> None:
    status, _, answer = api.call("POST", "/v1/events", event(event_id="e1"))
    assert (status, answer["event_ids"]) == (202, ["e1"])


def test_eight_clients_lose_nothing(api: Api) -> None:
    def one(i: int) -> int:
        member = MEMBERS[i % len(MEMBERS)]
        return api.call("POST", "/v1/recommendations", {"member_id": member})[0]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(200))) == {200}


def test_weights_change_under_load_without_a_restart_or_a_failure(api: Api) -> None:
    """Half a second after the change every request follows it; members keep their cell before and after."""
    before = {member: api.cell(member, "shelf") for member in MEMBERS}
    assert set(before.values()) == {"v1"}
    born = _started(api)
    stop, seen = threading.Event(), []

    def load(member: str) -> None:
        while not stop.is_set():
            asked = time.monotonic()
            status, _, page = api.call(
                "POST", "/v1/recommendations", {"member_id": member, "surface": "shelf"}
            )
            seen.append((asked, member, status, page.get("cell")))

    weights = {"1": 0.5, "2": 0.5}
    with ThreadPoolExecutor(4) as pool:
        for member in MEMBERS[:4]:
            pool.submit(load, member)
        time.sleep(0.5)
        status, _, answer = api.call("PUT", "/v1/splits/shelf", {"weights": weights, "who": "t", "why": "t"})
        changed = time.monotonic()
        loading = 0.0
        while api.call("GET", "/v1/splits/shelf")[2]["applied"] != weights:
            assert time.monotonic() - changed < 20, "the split was not followed"
        loading = time.monotonic() - changed
        time.sleep(0.5)
        stop.set()
    assert status == 200, answer
    assert {status for _, _, status, _ in seen} == {200}
    expected = {member: f"v{allocate(member, 'split/recommender', weights)}" for member in MEMBERS}
    after = [(member, cell) for asked, member, _, cell in seen if asked > changed + loading]
    assert after
    assert all(cell == expected[member] for member, cell in after)
    assert {member: api.cell(member, "shelf") for member in MEMBERS} == expected
    assert set(expected.values()) == {"v1", "v2"}

    status, _, answer = api.call(
        "PUT", "/v1/splits/shelf", {"weights": {"2": 1}, "who": "t", "why": "both are loaded now"}
    )
    changed = time.monotonic()
    while api.cell("m0", "shelf") != "v2" or api.cell("m1", "shelf") != "v2":
        assert time.monotonic() - changed < 5
    assert time.monotonic() - changed < 1
    assert _started(api) == born


def test_weights_changed_every_second_fail_no_request(api: Api) -> None:
    """Twenty seconds under load; each change is applied within a second of the answer to it."""
    api.call("PUT", "/v1/splits/row", {"weights": {"1": 1, "2": 1}, "who": "t", "why": "load both"})
    while api.call("GET", "/v1/splits/row")[2]["applied"] != {"1": 0.5, "2": 0.5}:
        time.sleep(0.1)
    stop, statuses = threading.Event(), []

    def load(member: str) -> None:
        while not stop.is_set():
            body = {"member_id": member, "surface": "row"}
            statuses.append(api.call("POST", "/v1/recommendations", body)[0])

    with ThreadPoolExecutor(4) as pool:
        for member in MEMBERS[:4]:
            pool.submit(load, member)
        for second in range(20):
            weights = {"1": (second % 4 + 1) / 5, "2": (4 - second % 4) / 5}
            api.call("PUT", "/v1/splits/row", {"weights": weights, "who": "t", "why": f"second {second}"})
            changed = time.monotonic()
            while api.call("GET", "/v1/splits/row")[2]["applied"] != pytest.approx(weights):
                assert time.monotonic() - changed < 1
                time.sleep(0.05)
            time.sleep(max(0.0, 1 - (time.monotonic() - changed)))
        stop.set()
    assert len(statuses) > 200
    assert set(statuses) == {200}


BROKEN: list[tuple[str, str, Any, str, int]] = [
    ("POST", "/v1/recommendations", b"{", "application/json", 400),
    ("POST", "/v1/recommendations", {"member_id": 5}, "application/json", 422),
    ("POST", "/v1/recommendations", {"member_id": "m1", "k": 0}, "application/json", 422),
    ("POST", "/v1/recommendations", {"member_id": "m1", "k": 10**9}, "application/json", 422),
    ("POST", "/v1/recommendations", {"member_id": "m1", "colour": 1}, "application/json", 422),
    ("POST", "/v1/recommendations", b"{}", "text/plain", 415),
    ("POST", "/v1/recommendations", b" " * (3 << 20), "application/json", 413),
    ("POST", "/v1/events", b"{", "application/json", 400),
    ("POST", "/v1/events", event(title_id="t999"), "application/json", 422),
    ("POST", "/v1/events", event(event_time="2999-01-01T00:00:00Z"), "application/json", 422),
    ("POST", "/v1/events", b" " * (3 << 20), "application/json", 413),
    ("GET", "/v1/events", None, "", 405),
    ("GET", "/v1/members/nobody/features", None, "", 404),
    ("GET", "/v1/nothing", None, "", 404),
]


@pytest.mark.parametrize(("method", "path", "body", "kind", "status"), BROKEN)
def test_bad_input_gets_a_problem_document(
    api: Api, method: str, path: str, body: Any, kind: str, status: int
) -> None:
    found, headers, document = api.call(method, path, body, kind=kind)
    assert found == document["status"] == status
    assert headers["content-type"] == "application/problem+json"
    assert document["detail"]
    assert "Traceback" not in str(document)


def test_a_chunked_body_is_counted_while_it_is_read(api: Api) -> None:
    chunks = (b" " * 65536 for _ in range(64))
    status, _, document = api.call("POST", "/v1/events", chunks)
    assert status == 413
    assert "accepted: up to 1048576 bytes" in document["detail"]


def test_a_port_in_use_is_refused(api: Api, settings: Settings) -> None:
    port = urlsplit(api.url).port
    other = settings.model_copy(update={"serving": settings.serving.model_copy(update={"port": port})})
    with pytest.raises(ConfigError, match=f"serving.port is {port}.*in use"):
        deployment.start(other, "127.0.0.1:9", name="another")


def test_without_the_broker_events_are_refused_and_rankings_go_on(api: Api) -> None:
    """Last in the file: it takes the broker away."""
    api.broker.stop()
    status, headers, document = api.call("POST", "/v1/events", event())
    assert (status, document["status"]) == (503, 503)
    assert int(headers["retry-after"]) >= 1
    start = time.monotonic()
    assert {api.cell(member, "home") for member in MEMBERS} == {"v1"}
    assert time.monotonic() - start < 10


def _started(api: Api) -> str:
    lines = api.call("GET", "/metrics")[2].splitlines()
    return next(str(line) for line in lines if line.startswith("matinee_api_process_start_time_seconds"))
