"""quixstreams: a hopping window of count and sum over a topic, which is the only source it has.

The topic (one partition) is filled before the clock starts: the key, the time as the message's timestamp, the
value as eight bytes, quixstreams' cheapest. No changelog topic, state in RocksDB as always. The clock runs
from the first event that reaches the window to the last window given out; a last event far ahead closes all.
"""

import tempfile
import time

from exchange import answer, request, write_windows
from quixstreams import Application
from quixstreams.dataframe.windows.aggregations import Count, Sum

IDLE_S = 3.0
"""The application ends when nothing has come for so long; not in the measured time."""
COMMIT_S = 5.0
SESSION_MS = 6000
"""The local broker's first group join waits for half of it."""


def main() -> None:
    asked = request()
    found: list = []
    marks: dict[str, float] = {}

    def fed(value: float) -> float:
        if not marks:
            marks["first"] = time.perf_counter()
        return value

    def given(value: dict, key: str, timestamp: int, headers: object) -> None:
        found.append((key, value["start"], value["count"], value["sum"]))
        marks["last"] = time.perf_counter()

    with tempfile.TemporaryDirectory() as state:
        app = Application(
            broker_address=asked["bootstrap"],
            consumer_group=f"windows-{time.time_ns()}",
            auto_offset_reset="earliest",
            use_changelog_topics=False,
            state_dir=state,
            commit_interval=COMMIT_S,
            consumer_extra_config={"session.timeout.ms": SESSION_MS},
            loglevel="WARNING",
        )
        topic = app.topic(asked["topic"], key_deserializer="str", value_deserializer="double")
        frame = app.dataframe(topic).apply(fed)
        windows = frame.hopping_window(
            duration_ms=asked["size_us"] // 1000,
            step_ms=asked["hop_us"] // 1000,
            grace_ms=asked["lateness_us"] // 1000,
        ).agg(count=Count(), sum=Sum())
        windows.final(closing_strategy="partition").update(given, metadata=True)
        app.run(timeout=IDLE_S)
    write_windows(
        asked["output"],
        [key for key, *_ in found],
        [start * 1000 for _, start, *_ in found],
        [count for _, _, count, _ in found],
        [total for *_, total in found],
    )
    answer(seconds=marks["last"] - marks["first"])


if __name__ == "__main__":
    main()
