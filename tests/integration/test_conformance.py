"""Kayenta's own facts, where they lie in a folder beside the repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matinee.canary.conformance import disagreements

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "cases" / "kayenta.json"


@pytest.mark.skipif(not CASES.exists(), reason=f"no {CASES}")
def test_every_fact_holds() -> None:
    found, tried = disagreements(json.loads(CASES.read_text()))
    assert found == []
    assert tried == 79
