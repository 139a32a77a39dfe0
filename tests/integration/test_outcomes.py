"""What members make of shown titles, from the lake to the ensemble's signals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import world_examples

from matinee.config import Settings
from matinee.features import batch
from matinee.features.store import FeatureStore
from matinee.models import discover
from matinee.models.base import Query
from matinee.training import pipeline


@pytest.fixture(scope="module")
def evaluated(
    tmp_path_factory: pytest.TempPathFactory, ray_cluster: str
) -> tuple[pipeline.Material, pipeline.Evaluation]:
    settings = Settings(home=tmp_path_factory.mktemp("home"), ray_address=ray_cluster)
    dataset = world_examples.dataset()
    dataset.catalogue.write(settings.paths.catalogue)
    world_examples.fill(Path(settings.paths.events), dataset.events)
    FeatureStore(settings).apply()
    batch.build(settings)
    material = pipeline.read(settings)
    configs = pipeline.presets(settings, discover(), "test")
    return material, pipeline.evaluate_models(settings, material, configs, protocols=["per_member"])


def test_outcomes_are_read_from_the_lake(evaluated: tuple[pipeline.Material, pipeline.Evaluation]) -> None:
    told = evaluated[0].everything.outcomes
    assert told is not None
    assert 0.02 < np.nanmean(told.click) < 0.5
    assert np.nanmax(told.completion) == 1


def test_heads_are_trained_for_every_part(evaluated: tuple[pipeline.Material, pipeline.Evaluation]) -> None:
    models = evaluated[1].fitted.models
    nobody = Query(
        histories=[np.zeros(0, np.int32)], times=[np.zeros(0, np.int64)], now=np.zeros(1, np.int64)
    )
    for part in ("per_member", "per_member.inner"):
        signals = models[f"{part}.dnn"].signals(nobody)
        assert list(signals) == ["score", "click", "play", "completion"]
        # Clicks are rarer than not, and titles differ in it.
        assert signals["click"].mean() < 0
        assert signals["click"].std() > 0
