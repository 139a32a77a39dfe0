"""The house itself: the source root shadows nothing, and importing does no work."""

from __future__ import annotations

import platform
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_source_root_holds_no_file_and_shadows_nothing() -> None:
    assert [path.name for path in (ROOT / "platform").iterdir() if path.is_file()] == []
    assert platform.system() != ""


def test_importing_writes_nothing(tmp_path: Path) -> None:
    code = "import matinee.cli, matinee.config, matinee.schema, matinee.local.platform, matinee.local.demo"
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []


def test_the_import_rules_know_every_model() -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (rule,) = [rule for rule in rules if rule["type"] == "independence"]
    folders = sorted(path.parent.name for path in (ROOT / "platform/matinee/models").glob("*/__init__.py"))
    assert rule["modules"] == [f"matinee.models.{folder}" for folder in folders]


def test_the_lock_names_no_registry_and_no_build() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all("==" in line and "://" not in line and "+" not in line for line in lines if line)
