from __future__ import annotations

import subprocess
import sys

import pytest

from matinee.models import discover
from matinee.models.base import Model

NAMES = ["cf", "dnn", "ensemble", "gnn", "popularity"]


def test_every_folder_is_found() -> None:
    assert list(discover()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_names_its_folder_and_has_its_presets(name: str) -> None:
    spec = discover()[name]
    assert spec.name == name
    assert issubclass(spec.model, Model)
    assert {"default", "test"} <= set(spec.presets)
    assert all(member in NAMES for member in spec.members)


def test_models_import_neither_ray_nor_a_store() -> None:
    script = (
        "import sys; from matinee.models import discover; discover();"
        "print([name for name in ('ray', 'feast', 'mlflow', 'dgl') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
