"""Online read through HTTP: 1 and 100 entities x 20 features, beside Feast's feature server.

Both servers run alone on loopback over their SQLite stores, one process each; one client asks over one
kept-alive connection, a request at a time. Latency from the first byte sent to the last byte read, p50 and
p99. Values are compared before anything is measured.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import online_home
from benchmarks.common import arguments, compare
from matinee.local.cluster import free_port

NAME = "online_read_http"
FEATURES = 20

_SERVE = """
import sys
from matinee.config import load_settings
from matinee.gateway.features_app import serve
home, repository, port = sys.argv[1:]
serve(load_settings({"home": home, "features.repository": repository}, environment={}), port=int(port))
"""


class Connection:
    """One kept-alive connection that posts JSON."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path
        self._socket = self._connected()

    def reopen(self) -> None:
        """Connect anew: a server may have closed what was idle."""
        self._socket.close()
        self._socket = self._connected()

    def request(self, body: Any) -> bytes:
        """The bytes of a request."""
        text = json.dumps(body).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            f"content-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
        )
        return head.encode() + text

    def ask(self, request: bytes) -> bytes:
        """The body of the answer.

        Raises:
            RuntimeError: the status is not 200.
        """
        self._socket.sendall(request)
        held = b""
        while (end := held.find(b"\r\n\r\n")) < 0:
            held += self._read()
        head = held[:end].lower()
        if not head.startswith(b"http/1.1 200"):
            raise RuntimeError(held.decode(errors="replace"))
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        parts, missing = [held[end + 4 :]], length - (len(held) - end - 4)
        while missing > 0:
            parts.append(self._read())
            missing -= len(parts[-1])
        return b"".join(parts)

    def _connected(self) -> socket.socket:
        opened = socket.create_connection(("127.0.0.1", self._port))
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def _read(self) -> bytes:
        found = self._socket.recv(1 << 18)
        if not found:
            raise RuntimeError("the server closed the connection")
        return found


def main(quick: bool) -> None:
    """Start both servers, compare what they answer, measure."""
    entities = 2_000 if quick else 20_000
    rows = online_home.table(entities, FEATURES)
    refs = [f"{online_home.VIEW}:{name}" for name in online_home.features(FEATURES)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        settings, _ = online_home.ours(folder / "ours", rows, FEATURES)
        online_home.feasts(folder / "feast", rows, FEATURES, f"{{type: sqlite, path: {folder}/feast.db}}")
        own_port, feast_port = free_port(), free_port()
        own_command = [sys.executable, "-c", _SERVE, str(settings.home), settings.features.repository]
        feast_command = [str(Path(sys.executable).with_name("feast")), "-c", str(folder / "feast"), "serve"]
        feast_options = ["--host", "127.0.0.1", "--port", str(feast_port), "--no-access-log"]
        feast_options += ["--max-requests", "0", "--max-requests-jitter", "0"]  # no restart on the way
        with (
            server([*own_command, str(own_port)], own_port, folder / "ours.log"),
            server([*feast_command, *feast_options], feast_port, folder / "feast.log"),
        ):
            own = Connection(own_port, "/v1/features")
            other = Connection(feast_port, "/get-online-features")
            for asked in (1, 100):
                measure(own, other, refs, entities, asked, quick)


def measure(
    own: Connection, other: Connection, refs: Sequence[str], entities: int, asked: int, quick: bool
) -> None:
    """Both percentiles for `asked` entities a request."""
    draw = np.random.default_rng(asked)
    groups = [[f"m{i}" for i in draw.integers(0, entities, asked)] for _ in range(200)]
    ours = [own.request({"service": online_home.SERVICE, "entities": keys}) for keys in groups]
    theirs = [other.request({"features": list(refs), "entities": {"member_id": keys}}) for keys in groups]
    calls = 2_000 if quick else 10_000
    slow_calls = calls // (10 if asked == 1 else 20)

    def check() -> None:
        own.reopen()
        other.reopen()
        for place, keys in enumerate(groups[:10]):
            (view,) = json.loads(own.ask(ours[place]))["views"]
            answer = json.loads(other.ask(theirs[place]))
            names = answer["metadata"]["feature_names"]
            values = {name: each["values"] for name, each in zip(names, answer["results"], strict=True)}
            assert {"member_id": keys, **view["values"]} == values

    for percentile in (50, 99):
        compare(
            name=NAME,
            peer="feast serve, sqlite",
            metric=f"p{percentile} of {asked} x {FEATURES} features",
            unit="ms",
            ours=lambda percentile=percentile: latency(own, ours, calls, percentile),
            theirs=lambda percentile=percentile: latency(other, theirs, slow_calls, percentile),
            higher_is_better=False,
            sizes={
                "entities": entities,
                "asked": asked,
                "features": FEATURES,
                "calls": calls,
                "peer_calls": slow_calls,
                "server_processes": 1,
                "connections": 1,
            },
            versions={each: version(each) for each in ("feast", "uvicorn", "httptools", "uvloop")},
            check=check,
        )


def latency(connection: Connection, requests: Sequence[bytes], calls: int, percentile: int) -> float:
    """A percentile of single requests, milliseconds."""
    connection.reopen()
    for request in requests[:50]:
        connection.ask(request)
    clock = time.perf_counter
    taken = np.empty(calls)
    for place in range(calls):
        request = requests[place % len(requests)]
        start = clock()
        connection.ask(request)
        taken[place] = clock() - start
    return float(np.percentile(taken, percentile) * 1e3)


@contextmanager
def server(command: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """A server in a process group of its own, which ends with the block."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        try:
            online_home.wait_for(port)
            yield
        except BaseException:
            print(log.read_text()[-2_000:], file=sys.stderr)
            raise
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


if __name__ == "__main__":
    main(arguments(__doc__).quick)
