from __future__ import annotations

import time

import numpy as np
import pytest

from matinee.training.usage import measured


def test_a_blocks_time_and_peak_memory_are_its_own() -> None:
    with measured() as large:
        np.ones(200 << 20, np.uint8)
        time.sleep(0.05)
    with measured() as small:
        pass
    assert 0.05 < large["seconds"] < 5
    assert 0 < small["seconds"] < large["seconds"]
    assert 190 < large["peak_mib"] - small["peak_mib"] < 260


def test_a_block_that_fails_is_measured_too() -> None:
    with pytest.raises(ValueError, match="no"), measured() as used:
        raise ValueError("no")
    assert used["seconds"] > 0
