"""The event door: what is posted becomes messages on the events topic, or dead letters with a reason.

The rules are `events.validate`'s, the same as the consumer's.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from matinee.config import Settings
from matinee.errors import Forbidden, InvalidInput, MatineeError, Unavailable
from matinee.events.dead_letters import DeadLetters
from matinee.events.encode import encode
from matinee.events.kafka import EventProducer
from matinee.events.validate import Rejected, Validator
from matinee.schema import Catalogue

MAX_EVENTS = 1000
"""Most events of one post."""

SEND_TIMEOUT_S = 3.0
"""Longest wait for the broker's acknowledgement."""

SOURCE = "http"
"""What dead letters say of where they came from."""

logger = logging.getLogger(__name__)


class BrokenJson(InvalidInput):
    """A body that is not JSON."""


@dataclass(frozen=True, kw_only=True)
class Received:
    """What became of a post.

    Args:
        single: one object was posted, not a list.
        event_ids: per event, given or made here; None where what was posted is no object.
        reasons: per event, why it was refused; None where it was accepted.
        member_ids: of the accepted ones.
    """

    single: bool
    event_ids: Sequence[str | None]
    reasons: Sequence[str | None]
    member_ids: Collection[str]


class Titles:
    """The ids of the catalogue's titles, read again when the file changes.

    Args:
        path: the catalogue's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = 0
        self._ids: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def ids(self) -> frozenset[str]:
        """Known title ids; the same object while the file stands.

        Raises:
            Unavailable: there is no catalogue yet, so no event can be judged.
        """
        try:
            stamp = self._path.stat().st_mtime_ns
        except OSError:
            raise Unavailable("no catalogue is loaded yet, so events cannot be checked") from None
        with self._lock:
            if stamp != self._stamp:
                self._ids = frozenset(Catalogue.read(self._path).title_ids)
                self._stamp = stamp
            return self._ids


class Intake:
    """Validates posts and hands the good events to the broker.

    Args:
        settings: catalogue, topics, limits.
        producer: the Kafka door.
    """

    def __init__(self, settings: Settings, producer: EventProducer) -> None:
        self._settings = settings
        self._producer = producer
        self._dead_letters = DeadLetters(producer, settings.kafka.dead_letters_topic)
        self._titles = Titles(settings.paths.catalogue)
        self._validator: Validator | None = None
        self._known: frozenset[str] = frozenset()

    def accept(self, body: bytes, member_id: str | None = None) -> Received:
        """Take a post: an event object or a list of them. Returns once the broker has the good ones.

        Refused events, and bodies that are not JSON, go to the dead letters.

        Args:
            member_id: the one member whose events are taken; None: anybody's.

        Raises:
            Forbidden: an event is not of that member; none is taken.
            BrokenJson: the body is not JSON.
            InvalidInput: it is neither an object nor a list of 1 to `MAX_EVENTS`.
            Unavailable: the broker did not acknowledge: nothing was refused, and the post may be
                repeated with the same event ids.
        """
        items, single = self._read(body)
        if member_id is not None:
            _require_own(items, member_id)
        now = time.time_ns() // 1000
        payloads, event_ids = _stamped(items, now)
        parsed = self._rules().parse(payloads, now=now)
        member_ids = parsed.events["member_id"].to_pylist()
        if member_ids:
            self._producer.send_wait(
                self._settings.kafka.events_topic,
                member_ids,
                encode(parsed.events),
                timeout_s=SEND_TIMEOUT_S,
            )
        reasons: list[str | None] = [None] * len(items)
        for rejected in parsed.rejected:
            reasons[rejected.row] = rejected.reason
        self._bury(
            [replace(rejected, payload=_original(items[rejected.row])) for rejected in parsed.rejected]
        )
        return Received(single=single, event_ids=event_ids, reasons=reasons, member_ids=frozenset(member_ids))

    def _read(self, body: bytes) -> tuple[list[Any], bool]:
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError as failure:
            reason = f"the body is not JSON: {failure}"
            if body:
                self._bury([Rejected(row=0, reason=reason, payload=body)])
            raise BrokenJson(reason) from None
        if isinstance(value, list):
            if not 1 <= len(value) <= MAX_EVENTS:
                raise InvalidInput(f"the list has {len(value)} events; accepted: 1 to {MAX_EVENTS}")
            return value, False
        return [value], True

    def _rules(self) -> Validator:
        known = self._titles.ids()
        if self._validator is None or known is not self._known:
            self._validator = Validator(
                titles=known,
                future_tolerance_s=self._settings.serving.future_tolerance_s,
                max_bytes=self._settings.serving.max_body_bytes,
            )
            self._known = known
        return self._validator

    def _bury(self, rejected: list[Rejected]) -> None:
        if not rejected:
            return
        try:
            self._dead_letters.send(rejected, source=SOURCE)
        except MatineeError as failure:  # the caller is told the reasons, so nothing is lost unseen
            logger.warning("%d refused events are not in the dead letters: %s", len(rejected), failure)


def _stamped(items: Sequence[Any], now: int) -> tuple[list[bytes], list[str | None]]:
    """Each event as bytes with its ingest time and an id, and the ids."""
    payloads, event_ids = [], []
    for item in items:
        if isinstance(item, dict):
            item = {**item, "ingest_time": now}
            if item.get("event_id") is None:
                item["event_id"] = str(uuid.uuid4())
            given = item["event_id"]
            event_ids.append(given if isinstance(given, str) else None)
        else:
            event_ids.append(None)
        payloads.append(orjson.dumps(item))
    return payloads, event_ids


def _require_own(items: Sequence[Any], member_id: str) -> None:
    for item in items:
        if isinstance(item, dict) and item.get("member_id") != member_id:
            raise Forbidden("the token speaks for one member, and an event is not theirs; none is taken")


def _original(item: Any) -> bytes:
    return orjson.dumps(item)
