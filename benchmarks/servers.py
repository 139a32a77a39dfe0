"""Servers for benchmarks: each a process of its own on one core, asked by a load generator on another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from benchmarks.common import ERROR_CHARACTERS, ROOT, PeerFailed, run_peer

PEERS = ROOT / "benchmarks" / "peers"
START_S = 240.0
STOP_S = 30.0
CONNECTIONS = 128
"""Most connections of a load."""
SLOWEST_MS = 500.0
"""p95 above which a server counts as saturated."""
KEPT = 0.95
"""Share of the offered requests that must be answered within the run, else it counts as saturated."""
PROBE_S = 3.0
"""Length of a run of the search for saturation."""
STEPS = 3
"""Halvings of the interval that saturation lies in."""

EQUAL = {"OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
"""Ray's workers have niceness 15 otherwise: beside anything else on the core they would hardly run."""

Request = Mapping[str, str]
"""`method`, `target` and `body`."""


@contextmanager
def server(
    command: Sequence[str], *, core: int, environment: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """A server that prints a JSON line with its `url` once it answers, and ends when its input does.

    Raises:
        PeerFailed: it does not answer in time; the text is the end of what it wrote.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as log:
        with _on(core):
            process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=log,
                start_new_session=True,
                cwd=ROOT,
                env={**os.environ, **EQUAL, **(environment or {})},
            )
        try:
            yield _started(process, output, log)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


@contextmanager
def our_server(flags: Mapping[str, Any], *, core: int) -> Iterator[str]:
    """Our API with its broker and Ray, from a data home; yields its address.

    Args:
        flags: dotted settings, `home` among them.
    """
    command = [sys.executable, str(PEERS / "serve_ours.py"), json.dumps({"flags": dict(flags)})]
    with server(command, core=core) as found:
        yield found["url"]


def _started(process: subprocess.Popen[bytes], output: IO[bytes], log: IO[bytes]) -> dict[str, Any]:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        for line in _written(output).splitlines(keepends=True):
            if line.startswith("{") and "url" in line and line.endswith("\n"):
                found: dict[str, Any] = json.loads(line)
                return found
        time.sleep(0.05)
    raise PeerFailed(f"{process.args} did not start: {_written(log)[-ERROR_CHARACTERS:]}")


def _written(file: IO[bytes]) -> str:
    """What a process wrote so far; where it writes next stays as it is."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


def load(url: str, requests: Sequence[Request], *, rate: float, seconds: float, core: int) -> dict[str, Any]:
    """Ask for `requests` in turn at a rate, from another core. Returns what `http_load` answers."""
    asked = {
        "url": url,
        "requests": list(requests),
        "rate": rate,
        "seconds": seconds,
        "connections": CONNECTIONS,
        "seed": 0,
    }
    with _on(core):
        found = run_peer(Path(sys.executable), "http_load", asked, cores=1, timeout_s=seconds + 60)
    told = {key: value if isinstance(value, dict) else round(value, 1) for key, value in found.items()}
    print(json.dumps({"asked_per_s": round(rate, 1), **told}), file=sys.stderr, flush=True)
    return found


def saturated(found: Mapping[str, Any]) -> bool:
    """Whether a run was more than the server could take."""
    good = found["answered"] >= KEPT * found["offered"]
    return not good or found["p95_ms"] > SLOWEST_MS


def saturation(url: str, requests: Sequence[Request], *, core: int, first: float) -> dict[str, Any]:
    """The run at the highest rate that the server takes: doubled until it does not, then halved in between.

    Args:
        first: requests a second to begin with.
    """
    load(url, requests, rate=first, seconds=PROBE_S / 2, core=core)
    low, high, best = 0.0, first, None
    while not saturated(found := load(url, requests, rate=high, seconds=PROBE_S, core=core)):
        low, high, best = high, 2 * high, found
    for _ in range(STEPS):
        middle = (low + high) / 2
        found = load(url, requests, rate=middle, seconds=PROBE_S, core=core)
        if saturated(found):
            high = middle
        else:
            low, best = middle, found
    if best is None:
        raise PeerFailed(f"{url} is saturated at {high:.0f} requests a second: {found}")
    return best


def homes(members: int) -> list[Request]:
    """Requests for the home pages of members m0, m1, ..."""
    return [{"method": "GET", "target": f"/v1/members/m{i}/home", "body": ""} for i in range(members)]


@contextmanager
def _on(core: int) -> Iterator[None]:
    """This process on one core, for what it starts meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
