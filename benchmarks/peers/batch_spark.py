"""PySpark on local[n]: grouping by member and day, then a range window of seven days; Parquet to Parquet.

The session is up, and has run the query over a tenth of the files, before the clock starts.
"""

import time

import pyspark
from exchange import answer, request
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as f


def daily(events: DataFrame) -> DataFrame:
    day = f.unix_date(f.to_date("event_time")).alias("day")
    grouped = events.groupBy("member_id", day).agg(
        f.count("*").alias("events"),
        f.coalesce(f.sum("value"), f.lit(0.0)).alias("total"),
        f.avg("value").alias("average"),
        f.countDistinct("title_id").alias("titles"),
        f.max("event_time").alias("event_timestamp"),
    )
    week = Window.partitionBy("member_id").orderBy("day").rangeBetween(-6, 0)
    return grouped.withColumn("week", f.sum("total").over(week)).drop("day")


def main() -> None:
    asked = request()
    spark = (
        SparkSession.builder.master(f"local[{asked['threads']}]")
        .config("spark.driver.memory", "10g")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", str(asked["shuffle_partitions"]))
        .config("spark.ui.enabled", "false")
        .config("spark.local.dir", asked["out"])
        .getOrCreate()
    )
    paths = asked["paths"]
    for name, read in (("warm", paths[: max(1, len(paths) // 10)]), ("spark", paths)):
        begun = time.perf_counter()
        daily(spark.read.parquet(*read)).write.mode("overwrite").parquet(f"{asked['out']}/{name}")
        seconds = time.perf_counter() - begun
    answer(seconds=seconds, version=pyspark.__version__)
    spark.stop()


if __name__ == "__main__":
    main()
