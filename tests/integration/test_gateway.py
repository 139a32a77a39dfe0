"""Authentication, rates and the client through a real Ray Serve."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import served_home
from credentials import api_key

from matinee.client import Call, Client, Denied, Missing
from matinee.config import Settings, load_settings
from matinee.errors import ConfigError
from matinee.events.broker import LocalBroker
from matinee.events.kafka import ensure_topics
from matinee.gateway import deployment

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

NAME = "test-gateway"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    flags = {"auth.keys": True, "gateway.rates": {"peer": "5/minute"}}
    home = {"home": str(tmp_path_factory.mktemp("home"))}
    made = load_settings(home | flags, environment={})
    served_home.make(made)
    return made


@pytest.fixture(scope="module")
def url(ray_cluster: str, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with LocalBroker(tmp_path_factory.mktemp("broker") / "log") as broker:
        ensure_topics(settings.kafka, broker.bootstrap)
        yield deployment.start(settings, broker.bootstrap, name=NAME)
        deployment.stop(NAME)


@pytest.fixture(scope="module")
def service(settings: Settings) -> str:
    return api_key(settings, "service")


def test_the_client_reads_and_posts(url: str, service: str) -> None:
    with Client(url, token=service) as api:
        page = api.recommend("m2", k=5)
        assert len(page["items"]) == 5
        now = 1_700_000_000_000_000
        watched = {"type": "play", "member_id": "m2", "title_id": "t5", "event_time": now}
        assert api.events([watched, watched])["accepted"] == 2
        assert "watched_title_ids" in api.features("m2")["features"]
        with pytest.raises(Missing):
            api.features("nobody")
        with pytest.raises(Denied, match="accepted here: operator"):
            api.split("home")


def test_an_address_is_not_what_a_header_says(url: str) -> None:
    statuses = [
        httpx.get(f"{url}/metrics", headers={"x-forwarded-for": f"203.0.113.{i}"}).status_code
        for i in range(8)
    ]
    assert statuses == [401] * 5 + [429] * 3


def test_an_open_route_answers_with_an_id(url: str) -> None:
    answer = httpx.get(f"{url}/healthz", headers={"x-request-id": "find-me"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "find-me")


def test_what_listens_elsewhere_is_not_given_an_open_application(
    url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that Serve has bound counts, whatever the settings say."""
    open_to_all = settings.model_copy(update={"auth": settings.auth.model_copy(update={"keys": False})})
    deployment.application(open_to_all, "127.0.0.1:9")
    monkeypatch.setattr(deployment, "_running_address", lambda: ("0.0.0.0", 8000))
    with pytest.raises(ConfigError, match="needs authentication"):
        deployment.application(open_to_all, "127.0.0.1:9")


def test_a_call_that_nothing_is_at(url: str, service: str) -> None:
    with Client(url, token=service) as api, pytest.raises(Missing, match="nothing is at"):
        api.call(Call(method="GET", path="/v2"))
