"""DuckDB's SQL: grouping by member and day, then a range frame of seven days; Parquet in, Parquet out."""

import time

import duckdb
from exchange import answer, request

QUERY = """
COPY (
    WITH daily AS (
        SELECT member_id, CAST(event_time AT TIME ZONE 'UTC' AS DATE) AS day, MAX(event_time)
            AS event_timestamp,
            COUNT(*) AS events, COALESCE(SUM(value), 0) AS total, AVG(value) AS average,
            COUNT(DISTINCT title_id) AS titles
        FROM read_parquet({paths}, hive_partitioning = false)
        GROUP BY ALL
    )
    SELECT member_id, events, total, average, titles, SUM(total) OVER (
        PARTITION BY member_id ORDER BY day RANGE BETWEEN INTERVAL 6 DAYS PRECEDING AND CURRENT ROW
    ) AS week, event_timestamp
    FROM daily
) TO '{out}' (FORMAT parquet)
"""


def main() -> None:
    asked = request()
    connection = duckdb.connect()
    connection.execute(f"SET threads = {asked['threads']}; SET TimeZone = 'UTC'")
    query = QUERY.format(paths=asked["paths"], out=f"{asked['out']}/duckdb.parquet")
    begun = time.perf_counter()
    connection.execute(query)
    answer(seconds=time.perf_counter() - begun, version=duckdb.__version__)


if __name__ == "__main__":
    main()
