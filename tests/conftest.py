"""What every test may use: one Ray cluster a session, a data home a test; properties without a deadline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fetched
import hypothesis
import pytest

from matinee.config import Settings, load_settings
from matinee.local.cluster import connect
from matinee.sources import movielens
from matinee.sources.dataset import Dataset

hypothesis.settings.register_profile("matinee", deadline=None)
hypothesis.settings.load_profile("matinee")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a home of the test's own, and nothing from the environment."""
    return load_settings({"home": str(tmp_path / "home")}, environment={})


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The session's Ray cluster; yields its GCS address."""
    home = tmp_path_factory.mktemp("cluster")
    with connect(load_settings({"home": str(home)}, environment={})) as address:
        yield address


@pytest.fixture(scope="session")
def movielens_100k(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """MovieLens 100K, fetched once a session."""
    home = load_settings({"home": str(tmp_path_factory.mktemp("movielens"))}, environment={}).paths
    fetched.movielens_100k(home)
    return movielens.load("movielens-100k", home)
