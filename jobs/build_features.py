"""Recompute every feature from the lake into the offline store, and check the stream's values against it.

    python jobs/build_features.py [--home HOME] [--as-of MICROSECONDS] [--no-compare] [--json]
    ray job submit --address URL --working-dir . --runtime-env-json '{"py_modules": ["platform/matinee"]}' \\
        -- python jobs/build_features.py --home HOME

A lake that fits one process is computed in this one, a larger one on Ray. Where nothing changed since the
last build, nothing is written. Ends with 1 where an online value differs from the recomputed one, and where
violated expectations hold the build back (`features.gate`).
"""

import argparse
import json
import sys
from contextlib import nullcontext
from typing import Any

from matinee.config import load_settings
from matinee.errors import MatineeError


def main() -> int:
    """Parse, build, run, close; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--home", help="the data home")
    parser.add_argument("--ray-address", help="a running Ray cluster")
    parser.add_argument("--as-of", type=int, help="leave out later events (microseconds since the epoch)")
    parser.add_argument("--no-compare", action="store_true", help="build only")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    try:
        settings = load_settings({"home": args.home, "ray_address": args.ray_address})
        from matinee.features import batch
        from matinee.local.cluster import connect

        with nullcontext() if batch.fits(settings) else connect(settings):
            figures: dict[str, Any] = {"build": batch.build(settings, as_of=args.as_of)}
            if not args.no_compare:
                figures["compare"] = batch.compare(settings)
    except MatineeError as failure:
        print(f"build_features: {failure}", file=sys.stderr)
        return 2
    show(figures, as_json=args.json)
    differs = any(view["differing"] for view in figures.get("compare", {}).values())
    return int(differs or "held" in figures["build"])


def show(figures: dict[str, Any], *, as_json: bool) -> None:
    """Print the figures: JSON, or a line for each view."""
    if as_json:
        print(json.dumps(figures))
        return
    built = figures["build"]
    changed = "" if built["written"] else ", unchanged"
    print(f"{built['events']} events, {built['seconds']:.1f} s, build {built['build']}{changed}")
    for each in built.get("violations", ()):
        print(f"  expected otherwise: {each}")
    if "held" in built:
        print(f"  held, the build before stays: {built['held']}")
    for view, rows in built["rows"].items():
        checked = figures.get("compare", {}).get(view)
        online = f"  online equal {checked['equal']} of {checked['rows']}" if checked else ""
        days = f"  days computed {built['computed'][view]}" if view in built["computed"] else ""
        print(f"{view:<18}{rows:>10} rows{days}{online}")
        for each in checked["differing"] if checked else ():
            print(f"  differs: {each['key']}: online {each['online']}, batch {each['batch']}")


if __name__ == "__main__":
    sys.exit(main())
