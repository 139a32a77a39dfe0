"""Home pages a second at saturation, beside the same models behind other servers.

Both servers are up, on one core, and asked in turn; the load comes from the other core, open loop, its rate
found by search. All but "asgi" compute every page anew from the same features with the same models: ours
without its page cache, Ray Serve as it comes with one hop for each model, BentoML with its adaptive batching.
"asgi" answers constant JSON of a page's size; ours beside it shows pages that it kept, as it does while their
member does nothing new: every page is made, one after another, before the load begins, and kept to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks import served
from benchmarks.common import ROOT, PeerFailed, PeerMissing, arguments, compare, installed, peer_venv, skipped
from benchmarks.peers import REQUIREMENTS
from benchmarks.servers import PEERS, Request, homes, our_server, saturation, server
from matinee.local.cluster import free_port

NAME = "serving_throughput"
MEMBERS = 2_000
ASKED = 400
"""Members whose pages are asked for in turn."""
QUICK_S = 0.25
"""Our shedding lets pages take so long here: peers shed nothing, and may take twice that."""
KEPT_S = 3_600.0
"""How long pages are kept where kept ones are measured: longer than the comparison takes."""
WARM_S = 120.0
"""Within which all of them must be kept."""


def main() -> None:
    args = arguments(__doc__, _declare)
    titles = 1_000 if args.quick else args.titles
    with tempfile.TemporaryDirectory(prefix=f"matinee-{NAME}-") as scratch:
        folder = Path(args.home or scratch)
        served.home(folder, titles=titles, members=MEMBERS)
        bench = Bench(folder, titles)
        for peer, cached in (("ray_serve", False), ("bentoml", False), ("asgi", True)):
            if peer not in args.peers:
                continue
            try:
                bench.against(peer, cached=cached)
            except (PeerMissing, PeerFailed) as reason:
                skipped(NAME, peer, str(reason))


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--titles", type=int, default=10_000)
    parser.add_argument("--home", help="a data home that an earlier run made here, or will be kept")
    parser.add_argument("--peers", nargs="+", default=["ray_serve", "bentoml", "asgi"])


def flags(folder: Path, *, cached: bool) -> dict[str, Any]:
    """Settings of our side."""
    cache = "sqlite" if cached else "none"
    found = {"home": str(folder), "serving.page_cache": cache, "gateway.quick_s": QUICK_S}
    return found | ({"serving.page_ttl_s": KEPT_S} if cached else {})


class Bench:
    """Both sides on one data home.

    Args:
        home: folder of it.
        titles: of its catalogue.
    """

    def __init__(self, home: Path, titles: int) -> None:
        self._home = home
        self._titles = titles
        cores = sorted(os.sched_getaffinity(0))
        self._server, self._client = cores[0], cores[-1]
        self._first = {"asgi": 1000.0, "kept": 1000.0}

    def against(self, peer: str, *, cached: bool) -> None:
        """Measure ours and a peer in turn."""
        with ExitStack() as servers:
            own = servers.enter_context(our_server(flags(self._home, cached=cached), core=self._server))
            page = _asked(own, homes(1)[0])
            url, requests = servers.enter_context(self._peer(peer, len(page)))
            if cached:
                _keep_all(own)

            def check() -> None:
                answer = _asked(url, requests[0])
                if peer == "asgi":
                    assert len(answer) == len(page), f"{len(answer)} bytes stand for {len(page)}"
                else:
                    assert _titles(answer) == _titles(page), f"{peer} shows other titles: {answer[:400]!r}"

            compare(
                name=NAME,
                peer=peer,
                metric="home pages a second at saturation" + (", pages kept" if cached else ""),
                unit="1/s",
                ours=lambda: self._rate(own, homes(ASKED), "kept" if cached else "ours"),
                theirs=lambda: self._rate(url, requests, peer),
                higher_is_better=True,
                sizes={"titles": self._titles, "members": ASKED, "page_bytes": len(page), "cores": 1},
                versions=self._versions(peer),
                check=check,
            )

    def _rate(self, url: str, requests: list[Request], side: str) -> float:
        found = saturation(url, requests, core=self._client, first=self._first.get(side, 25.0))
        self._first[side] = 0.7 * found["rate"]
        print(json.dumps({"side": side, **found}), file=sys.stderr, flush=True)
        return float(found["rate"])

    @contextmanager
    def _peer(self, peer: str, page_bytes: int) -> Iterator[tuple[str, list[Request]]]:
        asked: dict[str, Any] = {"port": free_port(), "flags": flags(self._home, cached=False)}
        environment: Mapping[str, str] = {}
        requests = homes(ASKED)
        match peer:
            case "ray_serve":
                asked["models"] = ["popularity", "cf", "dnn", "gnn"]
                command = [sys.executable, str(PEERS / "serve_ray.py"), json.dumps(asked)]
                environment = {"PYTHONPATH": os.pathsep.join([str(PEERS), os.environ.get("PYTHONPATH", "")])}
            case "bentoml":
                python = peer_venv("bentoml", REQUIREMENTS["bentoml"])
                command = [str(python), str(PEERS / "serve_bentoml.py"), json.dumps(asked)]
                environment = {"PEER_PATH": json.dumps([*map(str, sys.path[1:]), str(ROOT), str(PEERS)])}
                requests = [
                    {"method": "POST", "target": "/home", "body": json.dumps({"members": [f"m{i}"]})}
                    for i in range(ASKED)
                ]
            case _:
                asked["bytes"] = page_bytes
                command = [sys.executable, str(PEERS / "serve_asgi.py"), json.dumps(asked)]
        with server(command, core=self._server, environment=environment) as found:
            yield found["url"], requests

    def _versions(self, peer: str) -> dict[str, str]:
        match peer:
            case "bentoml":
                return installed(peer_venv("bentoml", REQUIREMENTS["bentoml"]), ["bentoml"])
            case "ray_serve":
                return installed(Path(sys.executable), ["ray"])
            case _:
                return installed(Path(sys.executable), ["uvicorn"])


def _keep_all(url: str) -> None:
    """Ask for every page, one at a time, until each is one that was kept.

    Raises:
        PeerFailed: it takes too long.
    """
    deadline = time.monotonic() + WARM_S
    left = {request["target"]: "" for request in homes(ASKED)}
    while left:
        for target, made_at in list(left.items()):
            page = json.loads(_asked(url, {"method": "GET", "target": target, "body": ""}))
            if page["made_at"] == made_at and page["fallback"] is None:
                del left[target]
            else:
                left[target] = page["made_at"]
        if time.monotonic() > deadline:
            raise PeerFailed(f"{len(left)} of {ASKED} pages of {url} are not kept after {WARM_S:.0f} s")


def _asked(url: str, request: Request) -> bytes:
    """The body of an answer."""
    asked = urllib.request.Request(
        url + request["target"],
        data=request["body"].encode() or None,
        method=request["method"],
        headers={"content-type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        body: bytes = answer.read()
    return body


def _titles(body: bytes) -> list[str]:
    """The titles of a page, row after row; a peer that answers many at a time wraps each as a text."""
    page = json.loads(body)
    if isinstance(page, list):
        page = json.loads(page[0])
    return [item["title_id"] for row in page["rows"] for item in row["items"]]


if __name__ == "__main__":
    main()
