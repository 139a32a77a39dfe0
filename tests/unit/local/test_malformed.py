from __future__ import annotations

import time

from matinee.events.validate import Validator
from matinee.local.malformed import malformed


def test_every_payload_is_refused_with_a_reason() -> None:
    validator = Validator(titles={"1"}, future_tolerance_s=300, max_bytes=1 << 20)
    payloads = [payload for _, payload in malformed(200, seed=0)]
    parsed = validator.parse(payloads, now=time.time_ns() // 1000)
    assert parsed.events.num_rows == 0
    assert [rejected.row for rejected in parsed.rejected] == list(range(200))
    assert all(rejected.reason for rejected in parsed.rejected)
    assert len({rejected.reason.split(" ")[0] for rejected in parsed.rejected}) > 5


def test_the_same_seed_gives_the_same_order() -> None:
    first, again = malformed(50, seed=3), malformed(50, seed=3)
    assert [key for key, _ in first] == [key for key, _ in again]
    assert [key for key, _ in first] != [key for key, _ in malformed(50, seed=4)]
