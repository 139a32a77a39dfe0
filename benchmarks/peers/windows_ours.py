"""Our side of the windows, in a process of its own as each peer has one; a smaller input runs before."""

import sys
from pathlib import Path

import pyarrow.parquet as pq
from exchange import answer, request

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))


def main() -> None:
    try:
        from benchmarks.windows_matinee import run
    except ModuleNotFoundError as missing:
        sys.exit(f"our windows cannot run: {missing}")
    asked = request()
    run(Path(asked["warm"]), asked["size_us"], asked["hop_us"])
    seconds, windows = run(Path(asked["path"]), asked["size_us"], asked["hop_us"])
    if asked["output"]:
        pq.write_table(windows, asked["output"])
    answer(seconds=seconds)


if __name__ == "__main__":
    main()
