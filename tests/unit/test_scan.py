"""The secret scan of CI, on a repository of the test's own."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

SCAN = Path(__file__).parents[2] / "tools" / "scan.py"


@pytest.fixture
def scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("scan", SCAN)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "BASELINE", tmp_path / ".secrets.baseline")
    return module


def test_a_new_secret_is_found_and_a_known_one_is_not(
    scan: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def hold(name: str, filling: str) -> None:
        (tmp_path / name).write_text(f"\n\ngithub = 'ghp_{filling * 18}'\n")
        subprocess.run(["git", "add", name], cwd=tmp_path, check=True)

    hold("known.py", "a1")
    assert scan.secrets(accept=True) == 0
    assert scan.secrets(accept=False) == 0
    hold("new.py", "b2")
    assert scan.secrets(accept=False) == 1
    assert "new.py:3: GitHub Token" in capsys.readouterr().out
