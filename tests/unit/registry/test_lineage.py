from pathlib import Path

import pytest

import matinee
from matinee.registry import lineage


def test_code_version_is_a_commit_or_the_release(monkeypatch: pytest.MonkeyPatch):
    assert lineage.code_version().startswith(("git:", "matinee "))
    monkeypatch.setenv("PATH", "")
    assert lineage.code_version() == f"matinee {matinee.__version__}"


def test_code_version_ignores_a_repository_that_does_not_track_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(matinee, "__file__", str(tmp_path / "__init__.py"))
    assert lineage.code_version() == f"matinee {matinee.__version__}"


def test_package_versions_leave_out_what_is_absent():
    found = lineage.package_versions(["numpy", "no-such-package-here"])
    assert sorted(found) == ["numpy", "python"]


def test_hardware_names_accelerators():
    assert lineage.hardware(["NVIDIA H200"]).endswith(", NVIDIA H200")
    assert "cores" in lineage.hardware()
