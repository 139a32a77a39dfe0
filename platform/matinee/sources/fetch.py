"""Brings files to this machine: wheels through pip, anything else over HTTP. Knows no data set."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from matinee.errors import NotFound, Unavailable

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]
"""Told bytes so far and bytes in all (None where unknown)."""

_CHUNK = 1 << 20


def checksum(path: Path, algorithm: str) -> str:
    """Hex digest of a file; `algorithm` as `hashlib.new` names it."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download one wheel, without its dependencies and without installing it, as pip is configured here.

    A virtual environment may have no pip (uv makes such ones): the base interpreter's pip or the copy
    that Python carries for `ensurepip` is used then.

    Args:
        requirement: "name==version".
        folder: existing folder to put the wheel in; must hold no other wheel.

    Raises:
        Unavailable: no pip is there, or pip cannot reach an index that has the wheel; says what pip said.
    """
    options = ["download", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    options += ["--quiet", "--retries=2", f"--dest={folder}", requirement]
    said = "no pip was found beside this Python"
    for command, environment in _pips():
        done = subprocess.run(
            [*command, *options], env=environment, capture_output=True, text=True, check=False
        )
        wheels = sorted(folder.glob("*.whl"))
        if done.returncode == 0 and wheels:
            return wheels[0]
        said = _last_line(done.stderr) or f"pip ended with code {done.returncode}"
        logger.info("%s: %s", " ".join(command), said)
        if "No module named pip" not in said:
            break
    raise Unavailable(f"cannot download {requirement}: {said}")


def download(url: str, path: Path, *, progress: Progress | None = None) -> None:
    """Download over HTTP(S), proxies as the environment names them.

    Raises:
        NotFound: the server has no such file.
        Unavailable: the server cannot be reached, or ended before the announced size.
    """
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, path.open("wb") as file:
            length = answer.headers.get("Content-Length")
            total = int(length) if length else None
            done = 0
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
    except urllib.error.HTTPError as failure:
        failure.close()
        if failure.code == 404:
            raise NotFound(f"{url} does not exist (HTTP 404)") from None
        raise Unavailable(f"{url} answered HTTP {failure.code}") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as failure:
        raise Unavailable(f"cannot download {url}: {getattr(failure, 'reason', failure)}") from None
    if total is not None and done != total:
        raise Unavailable(f"{url} ended after {done:,} of {total:,} bytes")


def _pips() -> Iterator[tuple[list[str], dict[str, str]]]:
    environment = dict(os.environ)
    if importlib.util.find_spec("pip"):
        yield [sys.executable, "-m", "pip"], environment
    base = getattr(sys, "_base_executable", "") or ""
    if base and base != sys.executable and shutil.which(base):
        yield [base, "-m", "pip"], environment
    bundled = Path(os.__file__).parent / "ensurepip" / "_bundled"
    for folder in (sysconfig.get_config_var("WHEEL_PKG_DIR"), bundled):
        for wheel in sorted(Path(folder).glob("pip-*.whl")) if folder else ():
            yield [sys.executable, "-m", "pip"], {**environment, "PYTHONPATH": str(wheel)}


def _last_line(text: str) -> str:
    """Pip's last error, with the broken connection it follows from: pip tells of that in warnings only."""
    lines = [line.removeprefix("ERROR: ").strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if not line.startswith(("WARNING", "["))]
    broken = re.findall(r"connection broken by '(.+)': /", text)
    last = errors[-1] if errors else ""
    if not last or not broken:
        return last
    cause = re.split(r"[>)]: ", broken[-1])[-1].rstrip("'\")")
    return f"{last} (an index does not answer: {cause})"
