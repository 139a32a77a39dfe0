"""The evaluator finds the figures of a published table."""

import pytest
from benchmarks import evaluator_proof


def test_gf_cf_on_gowalla_has_its_published_figures() -> None:
    if not evaluator_proof.DATA.is_dir():
        pytest.skip(f"{evaluator_proof.DATA} is missing")
    found = evaluator_proof.prove(evaluator_proof.DATA)
    assert {metric: found[metric][0] for metric in evaluator_proof.PUBLISHED} == evaluator_proof.PUBLISHED
