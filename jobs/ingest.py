"""Send a data set's events to the broker and wait until lake and online features have them."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from matinee.config import load_settings
from matinee.errors import MatineeError
from matinee.local.ingest import bring, send, wait_taken
from matinee.local.platform import joined


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("name", nargs="?", default="movielens-100k", help='a MovieLens release, or "world"')
    options.add_argument("--declared", type=Path, help="a TOML file that declares own data")
    options.add_argument("--days", type=int, default=30, help="of history that the world writes")
    options.add_argument("--home")
    options.add_argument("--seed", type=int)
    options.add_argument("--faults", type=int, default=0, help="malformed events to mix in")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    try:
        settings = load_settings({"home": given.home, "seed": given.seed})
        dataset = bring(settings, given.name, declared=given.declared, days=given.days)
        with joined(settings) as running:
            import ray

            stream = ray.get_actor("stream-supervisor")
            before = ray.get(stream.status.remote())
            sent = send(settings, running.bootstrap, dataset, faults=given.faults)
            taken = before["events"] + before["dead_letters"] + before["duplicates"] + sent
            status = wait_taken(stream, at_least=taken)
    except MatineeError as failure:
        print(f"ingest: {failure}", file=sys.stderr)
        return 2
    figures = {"sent": sent, **status}
    print(json.dumps(figures) if given.json else "\n".join(f"{k}: {v}" for k, v in figures.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
