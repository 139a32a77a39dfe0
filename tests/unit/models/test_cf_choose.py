from __future__ import annotations

import pytest

from matinee.models.cf.choose import choose
from matinee.models.cf.config import CfConfig

AUTO = CfConfig(ease_bytes=20 * 1_000**2)


@pytest.mark.parametrize(
    ("titles", "method", "needed"),
    [(0, "ease", 0), (1_000, "ease", 20_000_000), (1_001, "spectral", 20_040_020)],
)
def test_ease_where_its_memory_allows(titles: int, method: str, needed: int) -> None:
    choice = choose(AUTO, titles=titles)
    assert choice.method == method
    assert choice.reason == f"EASE takes {needed} bytes for {titles} titles, ease_bytes is 20000000"


@pytest.mark.parametrize("method", ["ials", "ease", "spectral"])
def test_a_named_method_is_taken_whatever_the_shape(method: str) -> None:
    assert choose(CfConfig(method=method), titles=10**6).method == method
