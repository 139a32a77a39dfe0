from __future__ import annotations

import pytest

from matinee.monitoring.policy import Limits, decide

LIMITS = Limits(share=0.5, rows=100)


@pytest.mark.parametrize(
    ("share", "rows", "action"),
    [
        (1.0, 99, "hold"),
        (0.0, 0, "hold"),
        (None, 500, "hold"),
        (0.49, 100, "keep"),
        (0.5, 100, "drift"),
        (1.0, 5000, "drift"),
    ],
)
def test_decides(share: float | None, rows: int, action: str) -> None:
    assert decide(share, rows, LIMITS).action == action


def test_says_why_with_the_numbers() -> None:
    held = decide(0.9, 12, LIMITS)
    assert "12 live rows" in held.reason
    assert "100" in held.reason
    drifted = decide(0.75, 300, LIMITS)
    assert "75%" in drifted.reason
    assert drifted.evidence == {"share": 0.75, "share_limit": 0.5, "rows": 300}
