"""Sends JSON events of about 200 bytes to a topic on loopback: so many, at so many a second, and no more.

Keys go to partitions as Java's default partitioner has it. Without a rate they go as fast as they can, with
event times that end now; with one, the event time is the time of sending.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer

MOST_EVENTS = 20_000_000
MOST_SECONDS = 300.0
JITTER_US = 4_000_000
"""One event in ten is up to this much older than those around it."""
EVENT_RATE = 50_000
"""Events a second of event time where they go as fast as they can."""
SLICE_S = 0.01
"""How often a paced sender looks at the clock."""
UNIT = 1_000_000


class Events(NamedTuple):
    """Drawn events, in the order of sending.

    Args:
        member: int64 [n], number of the member.
        back: int64 [n], microseconds by which an event is older than its place in the order says.
        value: float64 [n], whole millionths.
    """

    member: npt.NDArray[np.int64]
    back: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]


def draw(count: int, members: int, seed: int) -> Events:
    """The same arguments draw the same events. Members come with shares like 1 / (rank + 10)."""
    rng = np.random.default_rng(seed)
    share = 1 / (np.arange(members) + 10)
    member = np.searchsorted(np.cumsum(share) / share.sum(), rng.random(count), side="right")
    back = np.where(rng.random(count) < 0.1, rng.integers(0, JITTER_US, count), 0)
    return Events(member=member, back=back, value=rng.integers(0, 100 * UNIT, count) / UNIT)


def member_id(number: int) -> str:
    """The id of a member."""
    return f"member-{number:07d}"


def payload(event: int | str, member: str, time_us: int, value: float) -> str:
    """One event as JSON."""
    return (
        f'{{"event_id":"event-{event:0>16}","type":"play","member_id":"{member}",'
        f'"title_id":"t{time_us % 500:03d}","event_time":{time_us},'
        f'"session":"session-{event:0>16}","surface":"home","value":{value:.6f}}}'
    )


def times(events: Events, end_us: int) -> npt.NDArray[np.int64]:
    """Event times, microseconds, of events that go as fast as they can: evenly up to `end_us`."""
    count = len(events.member)
    return end_us - (count - np.arange(count)) * UNIT // EVENT_RATE - events.back


def producer(bootstrap: str, linger_ms: float = 5.0) -> Producer:
    """A producer for a broker on loopback; raises ValueError for another address."""
    if not bootstrap.startswith(("127.0.0.1:", "localhost:")):
        raise ValueError(f"broker {bootstrap}: only one on loopback is sent to")
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": linger_ms,
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 1_000_000,
            "log_level": 2,
        }
    )


def fill(bootstrap: str, topic: str, events: Events, *, end_us: int) -> None:
    """Send all as fast as they go and wait until the broker has them.

    Raises:
        TimeoutError: it does not take them within a minute.
    """
    texts = [
        (member_id(member), payload(i, member_id(member), time_us, value))
        for i, (member, time_us, value) in enumerate(
            zip(events.member.tolist(), times(events, end_us).tolist(), events.value.tolist(), strict=True)
        )
    ]
    sender = producer(bootstrap)
    for key, text in texts:
        _send(sender, topic, key, text)
    if sender.flush(60):
        raise TimeoutError(f"broker {bootstrap} did not take {len(texts)} events")


def pace(bootstrap: str, topic: str, *, rate: float, seconds: float, members: int, seed: int) -> None:
    """Send `rate` events a second for `seconds`, each as old as its draw says."""
    count = min(round(rate * seconds), MOST_EVENTS)
    events = draw(count, members, seed)
    drawn = list(zip(events.member.tolist(), events.back.tolist(), events.value.tolist(), strict=True))
    sender = producer(bootstrap)
    prefix = f"{seed}x"
    begun = time.monotonic()
    sent = 0
    while sent < count and time.monotonic() - begun < MOST_SECONDS:
        due = min(count, int((time.monotonic() - begun) * rate) + 1)
        now_us = time.time_ns() // 1000
        for i in range(sent, due):
            number, back, value = drawn[i]
            member = member_id(number)
            _send(sender, topic, member, payload(f"{prefix}{i}", member, now_us - back, value))
        sent = due
        sender.poll(0)
        time.sleep(SLICE_S)
    sender.flush(10)


def _send(sender: Producer, topic: str, key: str, text: str) -> None:
    while True:
        try:
            sender.produce(topic, key=key, value=text)
            return
        except BufferError:
            sender.poll(0.1)


def main() -> None:
    from exchange import answer, request

    asked = request()
    began = time.monotonic()
    pace(**asked)
    answer(seconds=time.monotonic() - began)


if __name__ == "__main__":
    main()
