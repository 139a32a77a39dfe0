from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from contracts.model_contract import training_set, unknown

from matinee.errors import NotFound, StorageError
from matinee.models.bundle import MANIFEST, load_bundle, save_bundle
from matinee.models.popularity.config import PopularityConfig
from matinee.models.popularity.model import Popularity
from matinee.models.storage import read_model


def save(folder: Path) -> Popularity:
    model = Popularity(PopularityConfig())
    data = training_set()
    model.fit(data, seed=0)
    save_bundle(folder, model, name="popularity", catalogue=data.catalogue, extra={"snapshot": "s1"})
    return model


def test_a_bundle_comes_back_whole(tmp_path: Path) -> None:
    model = save(tmp_path)
    bundle = load_bundle(tmp_path)
    assert (bundle.name, bundle.extra) == ("popularity", {"snapshot": "s1"})
    assert bundle.positions["t5"] == 5
    np.testing.assert_array_equal(bundle.model.score(unknown(1)), model.score(unknown(1)))


def test_without_its_manifest_it_is_no_bundle(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(NotFound, match=r"bundle\.json is missing"):
        load_bundle(tmp_path)


def test_a_model_of_an_unknown_name_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    manifest = tmp_path / MANIFEST
    manifest.write_text(manifest.read_text().replace("popularity", "oracle"))
    with pytest.raises(NotFound, match="oracle"):
        load_bundle(tmp_path)


def test_half_a_model_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not a whole saved model"):
        read_model(tmp_path)
