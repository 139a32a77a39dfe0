"""Online features over HTTP: what is asked, what is answered, what is refused."""

import pytest

from matinee.errors import NotFound, Unavailable
from matinee.gateway.features_app import FeaturesApp
from matinee.gateway.problems import MEDIA_TYPE


class Found:
    """As `ViewRows`."""

    view = "activity"
    names = ("plays", "titles", "raw")
    statuses = ("PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE")
    times = (1_000_000, None, 2)

    def columns(self):
        return [[1, None, None], [["a"], None, None], [b"\x00", None, None]]


class Store:
    def __init__(self):
        self.asked = []
        self.failure = None
        self.held = "g"

    def key_of(self, features):
        return "member_id"

    def read_views(self, features, keys):
        if self.failure:
            raise self.failure
        self.asked.append((features, keys))
        return [Found()]

    def generation(self):
        return self.held


@pytest.fixture
def store():
    return Store()


@pytest.fixture
def client(call, settings, store):
    return call(FeaturesApp(settings, store))


def problem_of(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    document = answer.json()
    assert document["status"] == status
    return document["detail"]


def test_a_service_is_answered_by_view_and_column(client, store):
    answer = client.post("/v1/features", json={"service": "serving", "entities": ["a", "b", "c"]})
    assert answer.status_code == 200
    assert answer.json() == {
        "entity": "member_id",
        "entities": ["a", "b", "c"],
        "views": [
            {
                "view": "activity",
                "statuses": ["PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE"],
                "event_times": ["1970-01-01T00:00:01.000000Z", None, "1970-01-01T00:00:00.000002Z"],
                "values": {
                    "plays": [1, None, None],
                    "titles": [["a"], None, None],
                    "raw": ["AA==", None, None],
                },
            }
        ],
    }
    assert store.asked == [("serving", ["a", "b", "c"])]


def test_features_can_be_named_and_many_keys_asked_for(client, store):
    keys = [f"m{i}" for i in range(2_000)]
    body = {"features": ["activity:plays", "activity:*"], "entities": keys}
    assert client.post("/v1/features", json=body).status_code == 200
    assert store.asked == [(["activity:plays", "activity:*"], keys)]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ([], "accepted: a JSON object"),
        ({"entities": ["a"]}, "exactly one of service and features"),
        ({"service": "s", "features": ["v:f"], "entities": ["a"]}, "exactly one of service and features"),
        ({"service": "s"}, "entities is missing"),
        ({"service": 3, "entities": ["a"]}, "service is 3"),
        ({"service": "s", "entities": [1]}, "entities is"),
        ({"service": "s", "entities": "a"}, "entities is 'a'"),
        ({"service": "s", "entities": []}, "entities has 0 entries; accepted: 1 to 10000"),
        ({"service": "s", "entities": ["a"] * 10_001}, "entities has 10001 entries"),
        ({"features": [], "entities": ["a"]}, "features has 0 entries"),
        ({"service": "s", "entities": ["a"], "more": 1}, "'more' is not a known field"),
    ],
)
def test_bodies_of_another_form_are_refused(client, store, body, detail):
    assert detail in problem_of(client.post("/v1/features", json=body), 422)
    assert store.asked == []


def test_what_is_not_json_is_refused(client, settings):
    kind = {"content-type": "application/json"}
    assert "not JSON" in problem_of(client.post("/v1/features", content=b"{", headers=kind), 400)
    assert "no content-type" in problem_of(client.post("/v1/features", content=b"{}"), 415)
    text = {"content-type": "text/plain"}
    assert "'text/plain'" in problem_of(client.post("/v1/features", content=b"{}", headers=text), 415)
    large = iter([b" " * settings.serving.max_body_bytes, b"{}"])
    problem_of(client.post("/v1/features", content=large, headers=kind), 413)


def test_other_paths_and_methods_are_refused(client):
    assert "/v1/features" in problem_of(client.get("/v1/nothing"), 404)
    answer = client.get("/v1/features")
    problem_of(answer, 405)
    assert answer.headers["allow"] == "POST"


def test_the_stores_refusals_become_problems(client, store):
    body = {"service": "s", "entities": ["a"]}
    store.failure = NotFound("feature service 's'; known: t")
    assert "known: t" in problem_of(client.post("/v1/features", json=body), 404)
    store.failure = Unavailable("asleep", retry_after_s=2.5)
    answer = client.post("/v1/features", json=body)
    problem_of(answer, 503)
    assert answer.headers["retry-after"] == "3"
    store.failure = KeyError("secret")
    assert "secret" not in problem_of(client.post("/v1/features", json=body), 500)


def test_readiness_is_the_stores(client, store):
    assert client.get("/healthz").json() == client.get("/readyz").json() == {"status": "ok"}
    store.held = None
    assert "holds nothing" in problem_of(client.get("/readyz"), 503)
