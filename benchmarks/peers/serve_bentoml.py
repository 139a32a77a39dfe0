"""Runs `bentoml_home` as `bentoml serve` would be run; ends when standard input does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

READY_S = 200.0


def main() -> None:
    from exchange import request

    asked = request()
    url = f"http://127.0.0.1:{asked['port']}"
    process = subprocess.Popen(
        [
            *f"{sys.executable} -m bentoml serve bentoml_home:Home --host 127.0.0.1 --port".split(),
            str(asked["port"]),
        ],
        cwd=Path(__file__).parent,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        env={**os.environ, "PEER_REQUEST": json.dumps(asked), "BENTOML_DO_NOT_TRACK": "1"},
    )
    try:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                urllib.request.urlopen(f"{url}/readyz", timeout=2)
                print(json.dumps({"url": url}), flush=True)
                sys.stdin.read()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
