from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

Message = Callable[..., bytes]


@pytest.fixture
def message() -> Message:
    """Makes an exposure message."""

    def make(number: int = 0, **fields: Any) -> bytes:
        exposure = {
            "exposure_id": f"r{number}",
            "time": 1_700_000_000_000_000 + number,
            "member_id": f"m{number}",
            "surface": "home",
            "model_version": "recommender/1",
            "cell": "v1",
            "answer": "personal",
            "titles": {"title_id": ["t1", "t2"], "score": [2.0, 1.0]},
            "features": {"plays_1h": 3, "affinity[Drama]": None},
            "latency_ms": 1.5,
        }
        return orjson.dumps(exposure | fields)

    return make
