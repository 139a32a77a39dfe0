"""The deploy file is one Serve accepts, binds loopback, and names an application that can be bound."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml

from matinee.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def document() -> object:
    return yaml.safe_load((ROOT / "serve_apps" / "recommendations.yaml").read_text())


def test_serve_accepts_the_deploy_file(document: object) -> None:
    from ray.serve.schema import ServeDeploySchema

    schema = ServeDeploySchema.model_validate(document)
    assert schema.http_options.host == "127.0.0.1"
    assert [app.name for app in schema.applications] == ["matinee"]


def test_the_application_binds(document: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    module = importlib.import_module("serve_apps.recommendations")
    monkeypatch.setattr(module, "named_monitor", lambda: None)
    args = document["applications"][0]["args"]  # type: ignore[index]
    with pytest.raises(ConfigError, match="MATINEE_KAFKA_BOOTSTRAP_SERVERS"):
        module.app(module.Args(**args))
    bound = module.app(module.Args(**(args | {"bootstrap": "127.0.0.1:9", "home": str(tmp_path)})))
    assert type(bound).__name__ == "Application"


@pytest.mark.parametrize("keys", ["true", "false"])
def test_another_address_needs_authentication(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keys: str
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    module = importlib.import_module("serve_apps.recommendations")
    monkeypatch.setattr(module, "named_monitor", lambda: None)
    monkeypatch.setenv("MATINEE_SERVING_HOST", "0.0.0.0")
    monkeypatch.setenv("MATINEE_AUTH_KEYS", keys)
    args = module.Args(bootstrap="127.0.0.1:9", home=str(tmp_path))
    if keys == "true":
        assert type(module.app(args)).__name__ == "Application"
    else:
        with pytest.raises(ConfigError, match="needs authentication"):
            module.app(args)
