from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from contracts.model_contract import START, TITLES, ModelContract, hit_rate, training_set

from matinee.errors import ConfigError
from matinee.models.base import Model, Query, Start
from matinee.models.cf import SPEC
from matinee.models.cf.config import CfConfig, Method
from matinee.models.popularity.config import PopularityConfig
from matinee.models.popularity.model import Popularity


class CfContract(ModelContract):
    method: ClassVar[Method]

    def build(self) -> Model:
        return SPEC.model(replace(SPEC.presets["test"], method=self.method, recent_half_life=1.0))

    def test_beats_popularity(self) -> None:
        popularity = Popularity(PopularityConfig())
        popularity.fit(training_set(), seed=0)
        assert hit_rate(self.fitted(), training_set()) > 1.5 * hit_rate(popularity, training_set())

    def test_late_titles_of_a_history_weigh_more(self) -> None:
        first, last = np.arange(3, dtype=np.int32), np.arange(22, 25, dtype=np.int32)
        asked = Query(
            histories=[np.concatenate([first, last]), np.concatenate([last, first])],
            times=[START + np.arange(6, dtype=np.int64)] * 2,
            now=np.full(2, START + 9, dtype=np.int64),
        )
        model = self.fitted()
        ends_late, ends_early = model.score(asked)[:, 25] - model.score(asked)[:, 3]
        assert ends_late > ends_early
        whole = model.signals(asked)["whole"]
        np.testing.assert_allclose(whole[0], whole[1], rtol=1e-3, atol=1e-5)

    def test_without_a_history_it_is_silent(self) -> None:
        nobody = Query(
            histories=[np.zeros(0, np.int32)], times=[np.zeros(0, np.int64)], now=np.array([START])
        )
        assert not self.fitted().score(nobody).any()


class TestIals(CfContract):
    method = "ials"


class TestEase(CfContract):
    method = "ease"
    factored = False


class TestSpectral(CfContract):
    method = "spectral"


@pytest.mark.parametrize(("limit", "method"), [(20 * TITLES**2, "ease"), (20 * TITLES**2 - 1, "spectral")])
def test_auto_takes_the_method_of_the_shape_and_a_loaded_model_keeps_it(
    limit: int, method: str, tmp_path: Path
) -> None:
    model = SPEC.model(replace(SPEC.presets["test"], ease_bytes=limit))
    model.fit(training_set(), seed=0)
    model.save(tmp_path)
    loaded = SPEC.model.load(tmp_path)
    assert loaded.choice.method == method
    assert loaded.choice == model.choice


def test_ease_weights_lie_by_row_also_where_they_were_saved_by_column(tmp_path: Path) -> None:
    model = SPEC.model(replace(SPEC.presets["test"], method="ease"))
    model.fit(training_set(), seed=0)
    fitted = model._scorer.weights
    assert fitted.flags.c_contiguous
    model.save(tmp_path)
    np.savez(tmp_path / "arrays.npz", weights=np.asfortranarray(fitted))
    loaded = SPEC.model.load(tmp_path)._scorer.weights
    assert loaded.flags.c_contiguous
    np.testing.assert_array_equal(loaded, fitted)


def test_a_method_gives_one_scorer_whoever_chose_it() -> None:
    named, chosen = (SPEC.model(CfConfig(method=method)) for method in ("ease", "auto"))
    for model in (named, chosen):
        model.fit(training_set(), seed=0)
    asked = Query(histories=[np.arange(4, dtype=np.int32)], times=[np.arange(4)], now=np.array([START]))
    np.testing.assert_array_equal(named.score(asked), chosen.score(asked))


SIX = Query(histories=[np.arange(6, dtype=np.int32)], times=[np.arange(6)], now=np.array([9]))


def ials(**changes: object) -> Model:
    model = SPEC.model(replace(SPEC.presets["test"], method="ials", **changes))
    model.fit(training_set(), seed=0)
    return model


def further(start: Start | None, **changes: object) -> np.ndarray:
    model = SPEC.model(replace(SPEC.presets["test"], method="ials", sweeps=1, **changes))
    model.fit(training_set(), seed=5, start=start)
    return model.score(
        Query(histories=[np.arange(6, dtype=np.int32)], times=[np.arange(6)], now=np.array([9]))
    )


def test_ials_goes_on_from_the_vectors_of_the_titles_there_were() -> None:
    same = np.arange(TITLES)
    settled = further(Start(model=ials(sweeps=60), titles=same))
    whole = ials(sweeps=61).score(SIX)
    np.testing.assert_allclose(settled, whole, atol=1e-5)
    assert not np.allclose(further(None), whole, atol=1e-2)


def test_new_titles_start_at_random_and_moved_ones_take_their_vectors_along() -> None:
    nothing_known = further(Start(model=ials(), titles=np.full(TITLES, -1)))
    np.testing.assert_array_equal(nothing_known, further(None))
    turned = further(Start(model=ials(sweeps=60), titles=np.roll(np.arange(TITLES), 7)))
    assert not np.allclose(turned, further(Start(model=ials(sweeps=60), titles=np.arange(TITLES))), atol=1e-3)


def test_vectors_of_another_length_are_refused_and_another_method_has_none() -> None:
    with pytest.raises(ConfigError, match=r"cf\.factors is 4, .* from 8"):
        further(Start(model=ials(), titles=np.arange(TITLES)), factors=4)
    ease = SPEC.model(replace(SPEC.presets["test"], method="ease"))
    ease.fit(training_set(), seed=0)
    np.testing.assert_array_equal(further(Start(model=ease, titles=np.arange(TITLES))), further(None))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", ["ease", "ials", "spectral"])
@pytest.mark.parametrize("iterations", [0, 4])
def test_a_gpu_fits_what_the_cpu_does(method: str, iterations: int) -> None:
    config = replace(SPEC.presets["test"], method=method, spectral_iterations=iterations)
    on_cpu, on_gpu = (SPEC.model(replace(config, device=device)) for device in ("cpu", "cuda"))
    for model in (on_cpu, on_gpu):
        model.fit(training_set(), seed=0)
    np.testing.assert_allclose(on_gpu.score(SIX), on_cpu.score(SIX), rtol=1e-3, atol=1e-4)
