"""Flink's SQL: a HOP window table function over a bounded table, streaming or batch, parallelism one.

In memory before the clock starts: a pandas frame that the JVM holds as Arrow batches. The clock runs over the
job, from its submission to its end; the measured runs give their windows to Flink's `blackhole` sink, the one
that is checked to CSV files. A smaller input has been through the same query in the same JVM before.
"""

import csv
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from exchange import answer, request, write_windows
from pyflink.common import Configuration
from pyflink.datastream import DataStream, RuntimeExecutionMode, StreamExecutionEnvironment
from pyflink.table import DataTypes, EnvironmentSettings, Schema, StreamTableEnvironment, TableEnvironment
from pyflink.table.types import _to_java_data_type

QUERY = """
INSERT INTO {sink} SELECT `key`, window_start, COUNT(*), SUM(`value`)
FROM TABLE(HOP(TABLE {source}, DESCRIPTOR(ts), INTERVAL '{hop_s}' SECOND, INTERVAL '{size_s}' SECOND))
GROUP BY `key`, window_start, window_end
"""
SINK = """
CREATE TABLE {name} (`key` STRING, window_start TIMESTAMP(3), events BIGINT, total DOUBLE) WITH ({options})
"""
BATCH_ROWS = 10_000


def configuration() -> Configuration:
    settings = Configuration()
    settings.set_string("parallelism.default", "1")
    settings.set_string("pipeline.object-reuse", "true")
    settings.set_string("table.local-time-zone", "UTC")
    settings.set_string("python.fn-execution.arrow.batch.size", str(BATCH_ROWS))
    return settings


def streaming() -> StreamTableEnvironment:
    environment = StreamExecutionEnvironment.get_execution_environment(configuration())
    environment.set_parallelism(1)
    environment.set_runtime_mode(RuntimeExecutionMode.STREAMING)
    return StreamTableEnvironment.create(environment)


def batch() -> TableEnvironment:
    settings = EnvironmentSettings.new_instance().in_batch_mode().with_configuration(configuration()).build()
    return TableEnvironment.create(settings)


def source(tables: TableEnvironment, path: str, name: str, lateness_us: int) -> None:
    """Register a file's events, held in memory, as the table `name` with its time attribute `ts`."""
    frame = pq.read_table(path).to_pandas()
    frame["ts"] = frame.pop("time").astype("datetime64[us]")
    held = tables.from_pandas(frame, splits_num=1)
    if isinstance(tables, StreamTableEnvironment):
        # Without the explicit type the rows keep Flink's internal strings and the next step fails on them;
        # pyflink's own to_data_stream doesn't take one.
        types = {"key": DataTypes.STRING(), "value": DataTypes.DOUBLE(), "ts": DataTypes.TIMESTAMP(3)}
        row = DataTypes.ROW([DataTypes.FIELD(column, kind) for column, kind in types.items()])
        rows = DataStream(tables._j_tenv.toDataStream(held._j_table, _to_java_data_type(row)))
        schema = Schema.new_builder()
        for column, kind in types.items():
            schema.column(column, kind)
        schema.watermark("ts", f"ts - INTERVAL '{lateness_us / 1e6:.3f}' SECOND(1, 3)")
        held = tables.from_data_stream(rows, schema.build())
    tables.create_temporary_view(name, held)


def run(tables: TableEnvironment, asked: dict, name: str, sink: str) -> float:
    query = QUERY.format(
        sink=sink, source=name, hop_s=asked["hop_us"] // 1_000_000, size_s=asked["size_us"] // 1_000_000
    )
    began = time.perf_counter()
    tables.execute_sql(query).wait()
    return time.perf_counter() - began


def start_us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


def main() -> None:
    asked = request()
    tables = {"streaming": streaming, "batch": batch}[asked["mode"]]()
    tables.execute_sql(SINK.format(name="nowhere", options="'connector' = 'blackhole'"))
    source(tables, asked["warm"], "warm", asked["lateness_us"])
    source(tables, asked["path"], "events", asked["lateness_us"])
    run(tables, asked, "warm", "nowhere")
    if not asked["output"]:
        answer(seconds=run(tables, asked, "events", "nowhere"))
        return
    with tempfile.TemporaryDirectory() as folder:
        options = f"'connector' = 'filesystem', 'path' = 'file://{folder}', 'format' = 'csv'"
        tables.execute_sql(SINK.format(name="files", options=options))
        seconds = run(tables, asked, "events", "files")
        rows = [
            row
            for path in Path(folder).rglob("*")
            if path.is_file()
            for row in csv.reader(path.read_text().splitlines())
        ]
    key, start, count, total = zip(*rows, strict=True)
    starts = {text: start_us(text) for text in set(start)}
    write_windows(
        asked["output"], key, [starts[each] for each in start], list(map(int, count)), list(map(float, total))
    )
    answer(seconds=seconds)


if __name__ == "__main__":
    main()
