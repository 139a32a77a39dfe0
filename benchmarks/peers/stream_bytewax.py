"""bytewax: from the topic to SQLite, windows as they close (fold_window gives none out before).

It ends at the end of the topic, which closes what is open.
"""

import time
from datetime import UTC, datetime, timedelta

import bytewax.operators as op
import bytewax.operators.windowing as win
import orjson
from bytewax.connectors.kafka import KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, SlidingWindower
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import cluster_main
from exchange import answer, request
from online import Store

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BATCH = 10_000


class _Partition(StatelessSinkPartition):
    def __init__(self, store: Store, hop_us: int) -> None:
        self._store = store
        self._hop_us = hop_us

    def write_batch(self, items: list) -> None:
        self._store.put(
            [(key, window * self._hop_us, count, total) for key, (window, (count, total)) in items]
        )


class Sink(DynamicSink):
    def __init__(self, store: Store, hop_us: int) -> None:
        self._store = store
        self._hop_us = hop_us

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Partition:
        return _Partition(self._store, self._hop_us)


def main() -> None:
    asked = request()
    store = Store(asked["store"])
    marks: dict[str, float] = {}
    now = datetime.now(UTC)
    size, hop, lateness = (
        timedelta(microseconds=asked[name]) for name in ("size_us", "hop_us", "lateness_us")
    )

    def decode(messages: list) -> list[tuple[str, tuple[datetime, float]]]:
        marks.setdefault("first", time.time())
        decoded = []
        for message in messages:
            event = orjson.loads(message.value)
            at = EPOCH + timedelta(microseconds=event["event_time"])
            decoded.append((event["member_id"], (at, event["value"])))
        return decoded

    flow = Dataflow("windows")
    messages = op.input(
        "events", flow, KafkaSource([asked["bootstrap"]], [asked["topic"]], tail=False, batch_size=BATCH)
    )
    events = op.flat_map_batch("decode", messages, decode)
    clock = EventClock(lambda event: event[0], wait_for_system_duration=lateness, now_getter=lambda: now)
    windower = SlidingWindower(length=size, offset=hop, align_to=EPOCH)
    windows = win.fold_window(
        "fold",
        events,
        clock,
        windower,
        lambda: (0, 0.0),
        lambda held, event: (held[0] + 1, held[1] + event[1]),
        lambda one, other: (one[0] + other[0], one[1] + other[1]),
    )
    op.output("store", windows.down, Sink(store, asked["hop_us"]))
    cluster_main(flow, asked["addresses"], asked["index"])
    answer(first=marks.get("first"), last=store.written_at)


if __name__ == "__main__":
    main()
