import time

import numpy as np
import pytest
from benchmarks.peers.load_generator import JITTER_US, draw, member_id, payload, producer, times

from matinee.events.validate import Validator


def test_the_same_arguments_draw_the_same_events():
    one, other = draw(500, 30, 1), draw(500, 30, 1)
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert (one.member != draw(500, 30, 2).member).any()


def test_an_event_has_200_bytes_and_is_one_that_the_platform_accepts():
    now = time.time_ns() // 1000
    text = payload(7, member_id(12), now, 12.5).encode()
    assert len(text) == 200
    validator = Validator(titles=[f"t{i:03d}" for i in range(500)], future_tolerance_s=300, max_bytes=1 << 20)
    parsed = validator.parse([text], now=now)
    assert not parsed.rejected
    assert parsed.events.select(["member_id", "type", "value"]).to_pylist() == [
        {"member_id": "member-0000012", "type": "play", "value": 12.5}
    ]


def test_event_times_end_before_the_end_and_are_out_of_order_by_less_than_the_jitter():
    events = draw(2_000, 30, 1)
    at = times(events, 1_700_000_000_000_000)
    assert at.max() < 1_700_000_000_000_000
    behind = np.maximum.accumulate(at) - at
    assert 0 < behind.max() <= JITTER_US


@pytest.mark.parametrize("address", ["10.0.0.1:9092", "example.org:9092"])
def test_nothing_is_sent_beyond_loopback(address):
    with pytest.raises(ValueError, match="only one on loopback"):
        producer(address)
