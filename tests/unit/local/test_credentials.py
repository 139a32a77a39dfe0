"""What the demo's clients need before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from credentials import api_key, issuer_file
from credentials import token as signed

from matinee.config import Settings, load_settings
from matinee.errors import ConfigError, InvalidInput
from matinee.local.credentials import require


def settings(home: Path, **flags: object) -> Settings:
    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    return load_settings({"home": str(home)} | dotted, environment={})


def test_without_authentication_nothing_is_needed(tmp_path: Path) -> None:
    require(settings(tmp_path), "service")
    assert not list(tmp_path.iterdir())


def test_a_key_of_a_scope_that_is_accepted(tmp_path: Path) -> None:
    service, operator = (api_key(settings(tmp_path), scope) for scope in ("service", "operator"))
    for good in (service, f"{service}\n"):
        require(settings(tmp_path, auth__keys=True, auth__token=good), "service", "batch")
    for wrong, said in (
        ("", r"authentication is on: set auth\.token .* of scope service or batch"),
        (operator, r"auth\.token is of scope operator: set .* of scope service or batch"),
        (service + "x", r"auth\.token is not accepted: the API key is not known"),
        ("a.b.c", r"auth\.token is not accepted: tokens are not accepted here"),
    ):
        with pytest.raises(ConfigError, match=said) as raised:
            require(settings(tmp_path, auth__keys=True, auth__token=wrong), "service", "batch")
        assert service not in str(raised.value)
    with pytest.raises(InvalidInput, match="no header may"):
        require(settings(tmp_path, auth__keys=True, auth__token=f"{service}\n{service}"), "service")


def test_a_token_of_several_scopes(tmp_path: Path) -> None:
    flags = {name.replace(".", "__"): value for name, value in issuer_file(tmp_path).items()}
    held = signed(scope="operator service", sub="this machine")
    for scope in ("service", "operator"):
        require(settings(tmp_path / "home", **flags, auth__token=held), scope)
    with pytest.raises(ConfigError, match=r"of scope operator, service: .* of scope batch"):
        require(settings(tmp_path / "home", **flags, auth__token=held), "batch")
