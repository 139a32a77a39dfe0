from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, cast

import orjson
import pytest

from matinee.errors import InvalidInput
from matinee.events.dead_letters import MAX_KEPT_BYTES, DeadLetters
from matinee.events.kafka import EventProducer
from matinee.events.validate import Rejected


class Recorder:
    """Takes what a producer would be given."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, dict[str, Any]]] = []

    def send_many(self, topic: str, keys: Sequence[str], payloads: Sequence[bytes]) -> None:
        self.sent += [
            (topic, key, orjson.loads(payload)) for key, payload in zip(keys, payloads, strict=True)
        ]

    def send_wait(self, topic: str, keys: Sequence[str], payloads: Sequence[bytes], timeout_s: float) -> None:
        self.send_many(topic, keys, payloads)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def letters(recorder: Recorder) -> DeadLetters:
    return DeadLetters(cast(EventProducer, recorder), "dead")


def test_a_letter_keeps_reason_bytes_and_place(letters: DeadLetters, recorder: Recorder) -> None:
    refused = [Rejected(row=4, reason="not JSON", payload=b"\xff{")]
    letters.send(refused, source="stream", positions=[(2, 17)])
    letters.send(refused, source="stream", positions=[(2, 17)])
    (topic, key, letter), again = recorder.sent
    assert (topic, key) == ("dead", "stream:2:17")
    assert again[1] == key
    assert base64.b64decode(letter.pop("payload_base64")) == b"\xff{"
    assert letter.pop("received_at").endswith("Z")
    assert letter == {
        "reason": "not JSON",
        "source": "stream",
        "payload_bytes": 2,
        "partition": 2,
        "offset": 17,
    }


def test_letters_from_http_have_keys_of_their_own(letters: DeadLetters, recorder: Recorder) -> None:
    refused = [Rejected(row=row, reason="r", payload=b"x") for row in range(2)]
    letters.send(refused, source="http", timeout_s=1.0)
    keys = {key for _, key, _ in recorder.sent}
    assert len(keys) == 2
    assert all(letter["offset"] is None for _, _, letter in recorder.sent)


def test_a_letter_fits_a_kafka_message(letters: DeadLetters, recorder: Recorder) -> None:
    letters.send([Rejected(row=0, reason="too large", payload=b"x" * 3_000_000)], source="http")
    ((_, _, letter),) = recorder.sent
    assert letter["payload_bytes"] == 3_000_000
    assert len(base64.b64decode(letter["payload_base64"])) == MAX_KEPT_BYTES
    assert len(orjson.dumps(letter)) < 1_000_000


def test_places_must_match_the_payloads(letters: DeadLetters, recorder: Recorder) -> None:
    with pytest.raises(InvalidInput, match="2 positions for 1"):
        letters.send([Rejected(row=0, reason="r", payload=b"")], source="s", positions=[(0, 0), (0, 1)])
    letters.send([], source="s")
    assert not recorder.sent
