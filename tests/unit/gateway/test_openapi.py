"""The OpenAPI document against the application: schemathesis asks what it can think of.

A route is covered by being in the application.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import credentials
import httpx
import live_server
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from matinee.config import Settings
from matinee.gateway.assembly import assemble
from matinee.gateway.guard import EXTENSION, SECURITY_SCHEMES

EXAMPLES = 40
"""Requests to each route; all of them together stay under a minute."""

NOT_CHECKED = [ignored_auth, positive_data_acceptance]
"""The first has a test of its own below; the second does not know that titles and versions must exist."""


@pytest.fixture(scope="module")
def app(home: Settings, bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The application with its real parts and authentication on."""
    path: Path = tmp_path_factory.mktemp("issuer")
    auth = home.auth.model_copy(
        update={name.split(".")[1]: value for name, value in credentials.issuer_file(path).items()}
    )
    return assemble(home.model_copy(update={"auth": auth}), bootstrap)


@pytest.fixture(scope="module")
def url(app: Any) -> Iterator[str]:
    with live_server.serving(app) as address:
        yield address


@pytest.fixture(scope="module")
def document(url: str) -> Any:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


def asked(document: Any, examples: int, check: Callable[[Any], None]) -> None:
    """Put `examples` made-up requests to each operation."""
    limits = settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    for found in document.get_all_operations():

        def one(case: Any) -> None:
            check(case)

        limits(given(found.ok().as_strategy())(one))()


def test_no_answer_is_undocumented_and_none_is_our_fault(document: Any) -> None:
    held = credentials.token(scope="operator service", sub="schemathesis")

    def check(case: Any) -> None:
        case.call_and_validate(headers={"authorization": f"Bearer {held}"}, excluded_checks=NOT_CHECKED)

    asked(document, EXAMPLES, check)


def test_no_route_answers_without_credentials_unless_it_says_so(document: Any) -> None:
    def check(case: Any) -> None:
        answer = case.call()
        case.validate_response(answer, excluded_checks=NOT_CHECKED)
        if answer.status_code != 400:  # no path, whoever asks
            assert (answer.status_code == 401) == bool(case.operation.definition.raw[EXTENSION])

    asked(document, 3, check)


def test_every_route_says_whom_it_lets_in_and_what_it_answers(app: Any) -> None:
    described = app.openapi()
    assert described["components"]["securitySchemes"] == SECURITY_SCHEMES
    for operations in described["paths"].values():
        for operation in operations.values():
            assert {"400", "429", "503"} <= set(operation["responses"])
            assert bool(operation["security"]) == bool(operation[EXTENSION])
            assert not operation["security"] or {"401", "403"} <= set(operation["responses"])
            assert "requestBody" not in operation or {"408", "413", "415"} <= set(operation["responses"])


def test_a_members_token_opens_no_route_for_another_member(app: Any, url: str) -> None:
    own = {"authorization": f"Bearer {credentials.token(sub='m1')}"}
    asked = 0
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            if "member" not in operation[EXTENSION]:
                continue
            given_ = [each["name"] for each in operation.get("parameters", ()) if each["in"] != "path"]
            assert not [name for name in given_ if "member" in name], (
                f"{path}: only a path or a body is checked"
            )
            if "{member_id}" in path or "requestBody" in operation:
                body = {"member_id": "m2"} if "requestBody" in operation else None
                answer = httpx.request(
                    method, url + path.replace("{member_id}", "m2"), json=body, headers=own
                )
                assert answer.status_code == 403, path
                asked += 1
    assert asked >= 3
