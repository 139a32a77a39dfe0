"""Evaluate every model, fit the ensemble on everything and register it as champion.

    python jobs/train.py [--home HOME] [--preset NAME] [--from VERSION] [--seed N] [--address RAY] [--json]
    ray job submit --address URL --working-dir . --runtime-env-json '{"py_modules": ["platform/matinee"]}' \\
        -- python jobs/train.py --home HOME
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from matinee.config import load_settings
from matinee.errors import MatineeError

if TYPE_CHECKING:
    from matinee.training.pipeline import TrainingReport


def main() -> int:
    """Parse, build, run, close; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--home", help="the data home")
    parser.add_argument("--preset", help="preset of the models (default: the setting training.preset)")
    parser.add_argument("--from", dest="start", help="version or alias to go on from: champion")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--address", help="a running Ray cluster")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    args = parser.parse_args()
    try:
        settings = load_settings({"home": args.home, "seed": args.seed, "ray_address": args.address})
        from matinee.local.cluster import connect
        from matinee.training import pipeline

        with connect(settings):
            moved = None if args.json else _moved()
            report = pipeline.train(settings, preset=args.preset, start=args.start, progress=moved)
    except MatineeError as failure:
        print(f"train: {failure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train: interrupted; nothing was registered", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(asdict(report)))
    else:
        _show(report)
    return 0


def _moved() -> Callable[[float, float, str | None], None]:
    said = ""

    def moved(completed: float, total: float, note: str | None) -> None:
        nonlocal said
        if note and note != said:
            said = note
            print(note, file=sys.stderr, flush=True)

    return moved


def _show(report: TrainingReport) -> None:
    from rich.console import Console

    from matinee.training.evaluate.report import tables

    console = Console()
    for table in tables(report.panels):
        console.print(table)
    version = report.version
    console.print(f"{version.name} version {version.version} is champion; card: {version.path}/card.md")
    steps = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in report.seconds.items())
    console.print(
        f"{steps}; weights {report.weights_digest[:16]}, data {report.data_snapshot}", highlight=False
    )


if __name__ == "__main__":
    sys.exit(main())
