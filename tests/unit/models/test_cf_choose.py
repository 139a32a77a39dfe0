from __future__ import annotations

import pytest

from matinee.models.cf.choose import choose
from matinee.models.cf.config import CfConfig

AUTO = CfConfig(ease_bytes=20 * 1_000**2, ease_watches=10)


@pytest.mark.parametrize(
    ("titles", "watches", "method", "reason"),
    [
        (1_000, 10_000, "ease", "1000 titles of 10.0 watches each"),
        (1_000, 9_999, "spectral", "EASE needs 10"),
        (1_001, 100_000, "spectral", "20040020 bytes of 20000000"),
        (0, 0, "spectral", "0.0 watches"),
    ],
)
def test_ease_where_it_fits_and_titles_are_watched_often(
    titles: int, watches: int, method: str, reason: str
) -> None:
    choice = choose(AUTO, titles=titles, watches=watches)
    assert choice.method == method
    assert reason in choice.reason


@pytest.mark.parametrize("method", ["ials", "ease", "spectral"])
def test_a_named_method_is_taken_whatever_the_shape(method: str) -> None:
    assert choose(CfConfig(method=method), titles=10**6, watches=1).method == method
