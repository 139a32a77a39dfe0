"""quixstreams: from the topic to SQLite, each window as it stands whenever an event changes it.

Windows that changed since the last checkpoint are written together, once each. It ends when nothing has come
for a while, or goes on for so many seconds.
"""

import time

from exchange import answer, request
from online import Store
from quixstreams import Application
from quixstreams.dataframe.windows.aggregations import Count, Sum
from quixstreams.sinks import BatchingSink, SinkBatch

SESSION_MS = 6000
"""The local broker's first group join waits for half of it."""


class Sink(BatchingSink):
    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def write(self, batch: SinkBatch) -> None:
        changed = {(item.key, item.value["start"]): item.value for item in batch}
        self._store.put(
            [(key, start * 1000, each["count"], each["sum"]) for (key, start), each in changed.items()]
        )


def main() -> None:
    asked = request()
    store = Store(asked["store"])
    marks: dict[str, float] = {}

    def value_of(event: dict) -> float:
        if not marks:
            marks["first"] = time.time()
        return event["value"]

    app = Application(
        broker_address=asked["bootstrap"],
        consumer_group="windows",
        auto_offset_reset="earliest",
        use_changelog_topics=False,
        state_dir=asked["state"],
        commit_interval=asked["commit_s"],
        consumer_extra_config={"session.timeout.ms": SESSION_MS},
        loglevel="WARNING",
    )
    topic = app.topic(
        asked["topic"],
        key_deserializer="str",
        value_deserializer="json",
        timestamp_extractor=lambda value, headers, timestamp, kind: value["event_time"] // 1000,
    )
    windows = (
        app.dataframe(topic)
        .apply(value_of)
        .hopping_window(
            duration_ms=asked["size_us"] // 1000,
            step_ms=asked["hop_us"] // 1000,
            grace_ms=asked["lateness_us"] // 1000,
        )
        .agg(count=Count(), sum=Sum())
    )
    windows.current().sink(Sink(store))
    app.run(timeout=asked["idle_s"])
    answer(first=marks.get("first"), last=store.written_at)


if __name__ == "__main__":
    main()
