"""The cluster files parse, agree with the settings and metrics of the package, and open nothing wide."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from matinee.config import load_settings
from matinee.errors import ConfigError
from matinee.gateway.metrics import Metrics
from matinee.monitoring.metrics import LABELLED, MEASURES

CLUSTER = Path(__file__).parents[2] / "cluster"
YAMLS = sorted(CLUSTER.rglob("*.yaml"))
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file())


def names_of_metrics() -> set[str]:
    ours = {measure.name + ("_total" if measure.total else "") for measure in (*MEASURES, *LABELLED)}
    api = Metrics(exposures=lambda: (0, 0), splits=lambda: {"home": {"1": 1.0}})
    api.request("/", "GET", 200, 0.1)
    api.events(accepted=1, rejected=1)
    return ours | set(re.findall(r"^(matinee_\w+)[ {]", api.text(), re.MULTILINE)) | {"matinee_drift_psi"}


def exists(variable: str) -> bool:
    try:
        load_settings(environment={variable: "1"})
    except ConfigError as failure:
        return "names no setting" not in str(failure)
    return True


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_yaml_parses(path: Path) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_exists(path: Path) -> None:
    unknown = [name for name in set(re.findall(r"MATINEE_[A-Z_]+", path.read_text())) if not exists(name)]
    assert unknown == []


def test_kubernetes_settings_are_accepted() -> None:
    documents = yaml.safe_load_all((CLUSTER / "kubernetes" / "platform.yaml").read_text())
    (config,) = [document for document in documents if document["kind"] == "ConfigMap"]
    settings = load_settings(environment=config["data"])
    assert settings.features.online_store == "redis"
    assert settings.kafka.bootstrap_servers


@pytest.mark.parametrize("name", ["alerts.yaml", "dashboard.json"])
def test_every_metric_exists(name: str) -> None:
    text = (CLUSTER / "observability" / name).read_text()
    known = names_of_metrics()
    used = set(re.findall(r"\bmatinee_\w+", text))
    assert used
    assert used <= known


def test_dashboard_shows_every_gauge_of_the_pipeline() -> None:
    dashboard = json.loads((CLUSTER / "observability" / "dashboard.json").read_text())
    expressions = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    for measure in (*MEASURES, *LABELLED):
        assert measure.name in expressions
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_alerts_are_complete() -> None:
    alerts = yaml.safe_load((CLUSTER / "observability" / "alerts.yaml").read_text())
    for rule in alerts["groups"][0]["rules"]:
        assert {"alert", "expr", "labels", "annotations"} <= set(rule)
        assert rule["labels"]["severity"] in ("page", "warn")


def test_ray_accepts_the_aws_cluster() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    given = yaml.safe_load((CLUSTER / "aws" / "cluster.yaml").read_text())
    prepared = prepare_config(copy.deepcopy(given))
    validate_config(prepared)
    assert prepared["setup_commands"] == given["setup_commands"]
    broken = prepared | {"available_nodes": {}}
    with pytest.raises(Exception, match="available_nodes"):
        validate_config(broken)


def test_aws_machines_use_our_group_and_profiles_and_no_public_address() -> None:
    cluster = yaml.safe_load((CLUSTER / "aws" / "cluster.yaml").read_text())
    access = yaml.safe_load((CLUSTER / "aws" / "access.yaml").read_text())["Resources"]
    profiles = {
        resource["Properties"]["InstanceProfileName"]
        for resource in access.values()
        if resource["Type"] == "AWS::IAM::InstanceProfile"
    }
    assert cluster["provider"]["use_internal_ips"]
    for node in cluster["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"]
        assert node["node_config"]["IamInstanceProfile"]["Name"] in profiles


def test_nobody_is_let_in_from_everywhere() -> None:
    access = yaml.safe_load((CLUSTER / "aws" / "access.yaml").read_text())
    assert "0.0.0.0/0" not in json.dumps(access["Resources"])
    pattern = access["Parameters"]["AdminCidr"]["AllowedPattern"]
    assert re.match(pattern, "10.0.0.0/16")
    assert not re.match(pattern, "0.0.0.0/0")
    assert not re.match(pattern, "10.0.0.0/0")
    backbone = yaml.safe_load((CLUSTER / "backbone" / "compose.yaml").read_text())
    for service in backbone["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_cloudformation_is_spared_the_yaml_it_refuses() -> None:
    text = (CLUSTER / "aws" / "access.yaml").read_text()
    assert not re.search(r"(^|\s)[&*][a-z]\w*|<<:", text)


def test_iam_allows_no_wildcard_actions() -> None:
    def statements(value: Any) -> list[dict[str, Any]]:
        if isinstance(value, dict):
            found = [value] if "Effect" in value else []
            return found + [s for child in value.values() for s in statements(child)]
        return [s for child in value for s in statements(child)] if isinstance(value, list) else []

    access = yaml.safe_load((CLUSTER / "aws" / "access.yaml").read_text())
    found = statements(access["Resources"])
    assert found
    for statement in found:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not any("*" in action for action in actions)
        if statement.get("Resource") == "*":
            assert all(action.startswith("ec2:Describe") for action in actions)


def test_ray_wants_a_token_everywhere() -> None:
    for name in ("platform.yaml", "train.yaml"):
        for document in yaml.safe_load_all((CLUSTER / "kubernetes" / name).read_text()):
            spec = document.get("spec", {})
            if document["kind"] == "RayCluster":
                assert spec["authOptions"] == {"mode": "token"}
            if document["kind"] == "RayJob":
                assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert "RAY_AUTH_MODE=token" in (CLUSTER / "aws" / "cluster.yaml").read_text()
