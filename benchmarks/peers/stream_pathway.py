"""pathway: from the topic to SQLite, each window as it stands after a commit that changed it.

A commit's windows are written together. It ends when all events are counted, or with its process. The clock
starts with the engine, because nothing sees an event before the windows do.
"""

import os
import time

import pathway as pw
from exchange import answer, request
from online import Store


class Event(pw.Schema):
    member_id: str
    event_time: int
    value: float


def main() -> None:
    asked = request()
    store = Store(asked["store"])
    windows_an_event = asked["size_us"] // asked["hop_us"]
    marks: dict[str, float] = {}
    held: dict[tuple[str, int], int] = {}
    changed: dict[tuple[str, int], tuple[int, float]] = {}
    counted = 0

    def given(key: object, row: dict, time: int, is_addition: bool) -> None:
        if is_addition:
            changed[row["member_id"], row["start"]] = (row["count"], row["total"])

    def commit(_: int) -> None:
        nonlocal counted
        if not changed:
            return
        store.put([(key, start, count, total) for (key, start), (count, total) in changed.items()])
        for at, (count, _total) in changed.items():
            counted += count - held.get(at, 0)
            held[at] = count
        changed.clear()
        if counted == asked["events"] * windows_an_event:
            answer(first=marks["first"], last=store.written_at)
            os._exit(0)

    group = {"group.id": "windows", "auto.offset.reset": "earliest"}
    events = pw.io.kafka.read(
        {"bootstrap.servers": asked["bootstrap"], **group},
        asked["topic"],
        schema=Event,
        format="json",
        autocommit_duration_ms=round(asked["commit_s"] * 1000),
    )
    windows = events.windowby(
        pw.this.event_time,
        window=pw.temporal.sliding(hop=asked["hop_us"], duration=asked["size_us"], origin=0),
        instance=pw.this.member_id,
    ).reduce(
        member_id=pw.this._pw_instance,
        start=pw.this._pw_window_start,
        count=pw.reducers.count(),
        total=pw.reducers.sum(pw.this.value),
    )
    marks["first"] = time.time()
    pw.io.subscribe(windows, on_change=given, on_time_end=commit)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)


if __name__ == "__main__":
    main()
