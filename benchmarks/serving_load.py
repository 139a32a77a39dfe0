"""Home pages under load: latency at half of saturation, by catalogue and members; what an overload leaves.

The server has one core, an open-loop load the other. Pages are computed anew each time (no page cache) from
the full ensemble. At half of saturation latencies count from the moment a request was due. The overload is
five times saturation: what is refused with 503, and the p95 of what is admitted beside that at half.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import served
from benchmarks.common import ROOT, PeerFailed, arguments, machine, skipped
from benchmarks.plots import side_by_side
from benchmarks.servers import Request, homes, load, our_server, saturation

NAME = "serving_load"
SIZES = ((1_000, 2_000), (10_000, 2_000), (10_000, 20_000), (100_000, 2_000))
"""Titles and members."""
OVERLOADED = SIZES[1]
"""Where the overload lasts for `OVERLOAD_S`."""
TARGET_MS = 50.0
HALF_S, OVERLOAD_S = 15.0, 30.0
TIMES = 5
ASKED = 400
"""Members whose pages are asked for in turn, spread over all."""
PLOT = ROOT / "docs" / "img" / "serving_load.png"


def main() -> None:
    args = arguments(__doc__, _declare)
    sizes = SIZES[:1] if args.quick else [size for size in SIZES if size[0] <= args.most_titles]
    lines = []
    for titles, members in sizes:
        with tempfile.TemporaryDirectory(prefix=f"matinee-{NAME}-") as scratch:
            folder = Path(args.homes) / f"{titles}-{members}" if args.homes else Path(scratch)
            try:
                lines.append(measure(folder, titles, members, quick=args.quick))
            except PeerFailed as reason:
                skipped(NAME, f"{titles} titles, {members} members", str(reason))
    if args.plot and len(lines) > 1:
        plot(lines)


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--homes", help="folder of data homes that earlier runs made here, or will be kept")
    parser.add_argument("--most-titles", type=int, default=SIZES[-1][0])
    parser.add_argument("--plot", action="store_true", help=f"draw {PLOT.relative_to(ROOT)}")


def measure(folder: Path, titles: int, members: int, *, quick: bool) -> dict[str, Any]:
    """One size; prints and returns its line."""
    served.home(folder, titles=titles, members=members)
    flags = {"home": str(folder), "serving.page_cache": "none"}
    requests = homes(members)[:: members // ASKED]
    cores = sorted(os.sched_getaffinity(0))
    with our_server(flags, core=cores[0]) as url:
        _warm(url, requests)
        top = saturation(url, requests, core=cores[-1], first=25.0)
        half = load(url, requests, rate=top["rate"] / 2, seconds=5 if quick else HALF_S, core=cores[-1])
        seconds = OVERLOAD_S if (titles, members) == OVERLOADED else 5.0
        over = load(url, requests, rate=TIMES * top["rate"], seconds=seconds, core=cores[-1])
    line = {
        "name": NAME,
        "titles": titles,
        "members": members,
        "saturation_per_s": round(top["rate"], 1),
        "half": {key: round(half[key], 2) for key in ("rate", "p50_ms", "p95_ms", "p99_ms")},
        "half_statuses": half["statuses"],
        "target_ms": TARGET_MS,
        "met": half["p95_ms"] <= TARGET_MS,
        "overload": {
            "offered_per_s": round(over["offered"] / over["seconds"], 1),
            "admitted_per_s": round(over["rate"], 1),
            "p95_ms": round(over["p95_ms"], 2),
            "p95_over_half": round(over["p95_ms"] / half["p95_ms"], 2),
            "statuses": over["statuses"],
            "unanswered": over["unanswered"],
        },
        "page_bytes": half["bytes"],
        "machine": machine(),
    }
    print(json.dumps(line), flush=True)
    return line


def _warm(url: str, requests: Sequence[Request]) -> None:
    """Ask for every page once, one after another: titles' neighbours are looked up the first time only."""
    for request in requests:
        urllib.request.urlopen(url + request["target"], timeout=60).close()


def plot(lines: Sequence[dict[str, Any]]) -> None:
    """Latency at half of saturation, and saturation, by the size of the catalogue."""
    grown = [line for line in lines if line["members"] == SIZES[0][1]]
    titles = [line["titles"] for line in grown]
    drawn = ("ms at half of saturation, one core", "home pages a second at saturation, one core")
    with side_by_side(PLOT, *drawn, across="titles") as (latency, rate):
        for key in ("p50_ms", "p95_ms", "p99_ms"):
            label = key.partition("_")[0]
            latency.plot(titles, [line["half"][key] for line in grown], marker="o", label=label)
        latency.axhline(TARGET_MS, color="grey", linestyle=":", label=f"{TARGET_MS:.0f} ms")
        rate.plot(titles, [line["saturation_per_s"] for line in grown], marker="o")
        for axes in (latency, rate):
            axes.set_xscale("log")
            axes.set_ylim(bottom=0)


if __name__ == "__main__":
    main()
