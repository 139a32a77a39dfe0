"""Make and keep a home page for every member the lake knows; a replica shows it while nothing happened since.

    python jobs/precompute.py [--home HOME] [--surface home] [--max-maturity AGE] [--language LANG]...
                              [--context NAME=TEXT]...
                              [--rows N] [--per-row N] [--workers N] [--address RAY] [--json]
    ray job submit --address URL --working-dir . --runtime-env-json '{"py_modules": ["platform/matinee"]}' \\
        -- python jobs/precompute.py --home HOME
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc

from matinee.config import Settings, load_settings
from matinee.errors import MatineeError, NotFound


def main() -> int:
    """Parse, build, run, close; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--home", help="the data home")
    parser.add_argument("--surface", default="home")
    parser.add_argument("--max-maturity", type=int, help="of the profile: the viewer's age")
    parser.add_argument("--language", action="append", default=[], help="of the profile; again for more")
    parser.add_argument("--context", action="append", default=[], help="of the request: country=SE")
    parser.add_argument("--rows", type=int, default=10)
    parser.add_argument("--per-row", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1, help="processes, each with one CPU")
    parser.add_argument("--address", help="a running Ray cluster")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    args = parser.parse_args()
    try:
        settings = load_settings({"home": args.home, "ray_address": args.address})
        figures = _run(settings, args)
    except MatineeError as failure:
        print(f"precompute: {failure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    rate = figures["members"] / figures["busy_s"] * args.workers
    print(
        json.dumps(figures)
        if args.json
        else f"{figures['kept']} pages of {figures['members']} members in {figures['seconds']:.1f} s, "
        f"{rate:.0f} members/s while working"
    )
    return 0


def _run(settings: Settings, args: argparse.Namespace) -> dict[str, float]:
    from matinee.local.cluster import connect
    from matinee.serving.availability import country_of
    from matinee.serving.home import Layout
    from matinee.serving.pages import HomeRequest
    from matinee.serving.precompute import precompute
    from matinee.serving.rank import Filters

    context = dict(told.partition("=")[::2] for told in args.context)
    request = HomeRequest(
        member_id="",
        surface=args.surface,
        layout=Layout(rows=args.rows, per_row=args.per_row),
        filters=Filters(max_maturity=args.max_maturity, languages=args.language, country=country_of(context)),
        context=context,
    )
    member_ids = _members(settings)
    with connect(settings):
        return asdict(precompute(settings, member_ids, request, workers=args.workers))


def _members(settings: Settings) -> list[str]:
    from matinee.events import lake

    events = lake.read_events(settings.paths.events, columns=["member_id"])
    found: pa.Array = pc.unique(events["member_id"])
    if not len(found):
        raise NotFound(f"the lake of {settings.home} knows no member; ingest events first")
    members: list[str] = found.to_pylist()
    return members


if __name__ == "__main__":
    sys.exit(main())
