"""pathway: a sliding windowby reduced to count and sum, fed as a stream ("stream") or taken whole ("static").

In memory before the clock starts: a list of Python tuples for the stream, which pathway commits every second;
a pandas frame for the static table. The stream gives out a window again whenever a commit changed it and the
last one counts: giving it out once (`exactly_once_behavior`) was three times slower.
"""

import time

import pathway as pw
import pyarrow.parquet as pq
from exchange import answer, request, write_windows

COMMIT_MS = 1000


class Event(pw.Schema):
    key: str
    time: int
    value: float


def windows(events: pw.Table, asked: dict) -> pw.Table:
    window = pw.temporal.sliding(hop=asked["hop_us"], duration=asked["size_us"], origin=0)
    return events.windowby(pw.this.time, window=window, instance=pw.this.key).reduce(
        key=pw.this._pw_instance,
        window_start=pw.this._pw_window_start,
        count=pw.reducers.count(),
        total=pw.reducers.sum(pw.this.value),
    )


def static(asked: dict) -> tuple[float, list]:
    frame = pq.read_table(asked["path"]).to_pandas()
    began = time.perf_counter()
    events = pw.debug.table_from_pandas(frame, schema=Event)
    found = pw.debug.table_to_pandas(windows(events, asked), include_id=False)
    seconds = time.perf_counter() - began
    return seconds, [found[name].tolist() for name in ("key", "window_start", "count", "total")]


def stream(asked: dict) -> tuple[float, list]:
    table = pq.read_table(asked["path"])
    rows = list(zip(*(table[name].to_pylist() for name in ("key", "time", "value")), strict=True))
    found: dict = {}

    class Subject(pw.io.python.ConnectorSubject):
        def run(self) -> None:
            for key, event_time, value in rows:
                self.next(key=key, time=event_time, value=value)

    def given(key: object, row: dict, time: int, is_addition: bool) -> None:
        if is_addition:
            found[row["key"], row["window_start"]] = (row["count"], row["total"])

    began = time.perf_counter()
    events = pw.io.python.read(Subject(), schema=Event, autocommit_duration_ms=COMMIT_MS)
    pw.io.subscribe(windows(events, asked), on_change=given)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    seconds = time.perf_counter() - began
    return seconds, [
        [key for key, _ in found],
        [start for _, start in found],
        [count for count, _ in found.values()],
        [total for _, total in found.values()],
    ]


def main() -> None:
    asked = request()
    seconds, columns = {"static": static, "stream": stream}[asked["mode"]](asked)
    write_windows(asked["output"], *columns)
    answer(seconds=seconds)


if __name__ == "__main__":
    main()
