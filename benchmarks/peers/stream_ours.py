"""Our side from the broker to the online store, in processes of its own: Ray starts and ends with it."""

import sys
from pathlib import Path

from exchange import answer, request

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))


def main() -> None:
    from benchmarks.streaming_end_to_end import measure_ours

    answer(**measure_ours(**request()))


if __name__ == "__main__":
    main()
