"""Ids of requests are version 4 UUIDs, each another."""

from __future__ import annotations

import uuid

from matinee.serving.request_ids import new_request_id


def test_ids_are_random_uuids() -> None:
    drawn = [new_request_id() for _ in range(2_000)]
    assert len(set(drawn)) == len(drawn)
    for each in drawn:
        parsed = uuid.UUID(each)
        assert (str(parsed), parsed.version, parsed.variant) == (each, 4, uuid.RFC_4122)
    for place in (place for place in range(32) if place not in (12, 16)):
        digits = {each.replace("-", "")[place] for each in drawn}
        assert len(digits) == 16
