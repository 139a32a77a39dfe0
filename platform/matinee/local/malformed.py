"""Malformed events of every kind a real application sends, to prove that none harms the good ones."""

from __future__ import annotations

import json
import time

import numpy as np


def malformed(count: int, *, seed: int) -> list[tuple[str, bytes]]:
    """`count` pairs of (key, payload), none of which is a valid event; every kind in turn, shuffled."""
    now = time.time_ns() // 1000
    good = {"type": "rate", "member_id": "1", "title_id": "1", "event_time": now, "value": 4.0}
    wrong: list[dict[str, object]] = [
        {"type": "binge"},
        {"type": 7},
        {"member_id": ""},
        {"member_id": None},
        {"title_id": "no-such-title"},
        {"title_id": None},
        {"event_time": now + 86_400_000_000},
        {"event_time": "yesterday"},
        {"value": 99.0},
        {"value": "five"},
        {"position": -1},
        {"schema_version": 99},
        {"stars": 4},
        {"context": "not an object"},
    ]
    broken = [b"", b"{", b"null", b"[1, 2]", b"\xff\xfe\x00", b'{"event_id": "x"}', b"not json at all"]
    payloads: list[bytes] = []
    for i in range(count):
        kind = i % (len(wrong) + len(broken))
        if kind < len(wrong):
            payloads.append(json.dumps(good | {"event_id": f"malformed-{i}"} | wrong[kind]).encode())
        else:
            payloads.append(broken[kind - len(wrong)])
    order = np.random.default_rng(seed).permutation(count)
    return [(f"malformed-{i}", payloads[i]) for i in order]
