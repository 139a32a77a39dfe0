"""`matinee up` with authentication on: clients and commands of this machine have keys, others are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import served_home
from commands import matinee
from credentials import api_key

from matinee.config import load_settings
from matinee.local.clients import Client, freshness, load, wait_ready

ON = {"MATINEE_AUTH_KEYS": "true"}
MEMBERS = [f"m{i}" for i in range(8)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = load_settings({"home": str(tmp_path_factory.mktemp("home"))}, environment={})
    served_home.make(settings)
    return settings.home


@pytest.fixture(scope="module")
def service(home: Path) -> str:
    arguments = ["keys", "create", "--scope", "service", "--why", "test", "--json"]
    key: str = json.loads(matinee(home, *arguments, environment=ON).stdout)["key"]
    return key


@pytest.fixture(scope="module")
def operator(home: Path) -> str:
    return api_key(load_settings({"home": str(home)}, environment={}), "operator")


@pytest.fixture(scope="module")
def url(home: Path, service: str) -> Iterator[str]:
    up = matinee(home, "up", "--json", environment=ON | {"MATINEE_AUTH_TOKEN": service})
    assert up.returncode == 0, up.stderr
    found: str = json.loads(up.stdout)["url"]
    with Client(found) as client:
        wait_ready(client, timeout_s=60)
    yield found
    assert json.loads(matinee(home, "down", "--json", environment=ON).stdout) == {"stopped": True}


def status(home: Path, token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        matinee(home, "status", "--json", environment=ON | {"MATINEE_AUTH_TOKEN": token}).stdout
    )
    return found


def test_clients_with_a_key_are_served_and_others_are_not(url: str, service: str, operator: str) -> None:
    with Client(url, service) as client:
        assert load(client, MEMBERS, requests=40, clients=4).failed == 0
        fresh = freshness(client, MEMBERS)
    assert (fresh.posts, fresh.lost, fresh.still_shown) == (8, 0, 0)
    for token, code in (("", 401), (service + "x", 401), (operator, 403)):
        with Client(url, token) as client:
            assert client.recommend("m1")[0] == code


def test_commands_of_this_machine_show_their_token(home: Path, url: str, service: str, operator: str) -> None:
    whole = status(home, operator)
    assert (whole["api"], whole["url"]) == ("ready", url)
    assert whole["pipeline"]["matinee_stream_up"] == 1
    partial = status(home, service)
    assert partial["api"] == "ready"
    assert partial["pipeline"] == "GET /metrics answers 403; auth.token must be of scope operator"


def test_rollouts_need_no_key_on_this_machine(home: Path, url: str) -> None:
    arguments = ["rollout", "start", "recommender", "--candidate", "2", "--json"]
    started = matinee(home, *arguments, environment=ON)
    assert started.returncode == 0, started.stderr
    number = json.loads(started.stdout)["rollout"]
    stopped = matinee(home, "rollout", "stop", str(number), "--json", environment=ON)
    assert stopped.returncode == 0, stopped.stderr


def test_a_demo_without_a_key_ends_before_it_begins(home: Path) -> None:
    done = matinee(home, "demo", "--exit", environment=ON, timeout_s=60)
    assert done.returncode == 2
    assert "authentication is on: set auth.token" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_file_of_the_home_holds_a_key(home: Path, url: str, service: str, operator: str) -> None:
    secrets = [key.split("_", 2)[2].encode() for key in (service, operator)]
    files = [path for path in home.rglob("*") if path.is_file()]
    assert home / "logs" / "service.log" in files
    assert not [path for path in files if any(secret in path.read_bytes() for secret in secrets)]
