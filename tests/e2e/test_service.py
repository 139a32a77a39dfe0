"""`matinee up` on the demo's home, authentication on: it resumes, serves who has a key, refuses others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import matinee
from credentials import api_key

from matinee.config import load_settings
from matinee.local.clients import Client, freshness, load, wait_ready

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ON = {"MATINEE_AUTH_KEYS": "true"}
MEMBERS = [str(member) for member in range(190, 198)]


@pytest.fixture(scope="module")
def service(home: Path, report: dict[str, Any]) -> str:
    arguments = ["keys", "create", "--scope", "service", "--why", "test", "--json"]
    key: str = json.loads(matinee(home, *arguments, environment=ON).stdout)["key"]
    return key


@pytest.fixture(scope="module")
def operator(home: Path, report: dict[str, Any]) -> str:
    return api_key(load_settings({"home": str(home)}, environment={}), "operator")


@pytest.fixture(scope="module")
def url(home: Path, service: str) -> Iterator[str]:
    up = matinee(home, "up", "--json", environment=ON | {"MATINEE_AUTH_TOKEN": service})
    assert up.returncode == 0, up.stderr + (home / "logs" / "service.log").read_text()[-2000:]
    found: str = json.loads(up.stdout)["url"]
    with Client(found) as client:
        wait_ready(client, timeout_s=60)
    yield found
    assert json.loads(matinee(home, "down", "--json", environment=ON).stdout) == {"stopped": True}
    assert matinee(home, "status", environment=ON).returncode == 1


def status(home: Path, token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        matinee(home, "status", "--json", environment=ON | {"MATINEE_AUTH_TOKEN": token}).stdout
    )
    return found


def test_a_demo_without_a_key_ends_before_it_begins(home: Path, report: dict[str, Any]) -> None:
    done = matinee(home, "demo", "--exit", environment=ON, timeout_s=60)
    assert done.returncode == 2
    assert "authentication is on: set auth.token" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_it_resumes_what_was_trained(home: Path, url: str, service: str) -> None:
    champion = json.loads(matinee(home, "models", "--json").stdout)["champion"]
    with Client(url, service) as client:
        code, page = client.recommend("196", k=5)
    assert code == 200
    assert page["answer"] == "personal"
    assert page["model_version"].split("/")[-1] == champion


def test_another_on_the_same_home_is_refused(home: Path, url: str, service: str) -> None:
    again = matinee(home, "demo", "--exit", environment=ON | {"MATINEE_AUTH_TOKEN": service})
    assert again.returncode == 2
    assert "in use" in again.stderr


def test_clients_with_a_key_are_served_and_others_are_not(url: str, service: str, operator: str) -> None:
    with Client(url, service) as client:
        assert load(client, MEMBERS, requests=40, clients=4).failed == 0
        fresh = freshness(client, MEMBERS)
    assert (fresh.posts, fresh.lost, fresh.still_shown) == (8, 0, 0)
    for token, code in (("", 401), (service + "x", 401), (operator, 403)):
        with Client(url, token) as client:
            assert client.recommend("196")[0] == code


def test_commands_of_this_machine_show_their_token(home: Path, url: str, service: str, operator: str) -> None:
    whole = status(home, operator)
    assert (whole["api"], whole["url"]) == ("ready", url)
    assert whole["pipeline"]["matinee_stream_up"] == 1
    partial = status(home, service)
    assert partial["api"] == "ready"
    assert partial["pipeline"] == "GET /metrics answers 403; auth.token must be of scope operator"


def test_rollouts_need_no_key_on_this_machine(home: Path, url: str) -> None:
    listed = matinee(home, "rollout", "list", "--json", environment=ON)
    assert (listed.returncode, json.loads(listed.stdout)) == (0, {"rollouts": []})


def test_no_file_of_the_home_holds_a_key(home: Path, url: str, service: str, operator: str) -> None:
    secrets = [key.split("_", 2)[2].encode() for key in (service, operator)]
    files = [path for path in home.rglob("*") if path.is_file()]
    assert home / "logs" / "service.log" in files
    assert not [path for path in files if any(secret in path.read_bytes() for secret in secrets)]
