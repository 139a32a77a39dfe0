"""What every benchmark shares: paired comparisons, peers in venvs of their own, equal cores for both sides.

A comparison prints one JSON line. A peer runs as a script in its own venv (`peer_venv`, `run_peer`) and
answers with one JSON object, so that its requirements never meet those of the platform.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
INSTALL_S = 900.0
"""Longest time that a peer's installation may take."""
SCALE = (1, 4, 16)
"""How often the base size is taken where a benchmark shows how its cost grows."""
ERROR_CHARACTERS = 600
"""Most of a peer's error output that a reason quotes: its end."""


class PeerMissing(Exception):
    """A peer cannot be installed here; the text says why."""


class PeerFailed(Exception):
    """A peer's script ended without an answer; the text is the end of what it wrote."""


def arguments(
    doc: str | None, add: Callable[[argparse.ArgumentParser], None] | None = None
) -> argparse.Namespace:
    """The command line of a benchmark.

    Args:
        doc: the benchmark's module docstring; its first line is the description.
        add: declares further arguments.

    Returns:
        A namespace with `quick` and what `add` declared.
    """
    parser = argparse.ArgumentParser(description=(doc or "").split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes: a few minutes in all")
    if add is not None:
        add(parser)
    return parser.parse_args()


def machine() -> dict[str, Any]:
    """Returns cpu (model), cores (those this process may use), memory_gib and python."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
    }


def compare(
    *,
    name: str,
    peer: str,
    metric: str,
    unit: str,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    higher_is_better: bool,
    repeats: int = 5,
    sizes: Mapping[str, Any],
    versions: Mapping[str, str],
    check: Callable[[], None] | None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure both sides in turn and print one JSON line.

    Args:
        ours: runs our side once and returns the metric, above zero; `theirs` likewise.
        higher_is_better: of the metric.
        repeats: pairs, five at least; which side goes first alternates.
        check: raises where the two sides' outputs differ; called before anything is measured.
        more: further fields, read after the runs.

    Returns:
        What was printed: name, peer, metric, ours and theirs (medians), ratio (the median of the paired
        ratios, above 1 where ours is better), unit, repeats, interval (least and greatest paired ratio),
        sizes, versions, machine.

    Raises:
        ValueError: fewer than five repeats, or a metric that is not above zero.
    """
    if repeats < 5:
        raise ValueError(f"{name}: repeats is {repeats}; five or more are accepted")
    if check is not None:
        check()
    pairs = []
    for turn in range(repeats):
        if turn % 2:
            other = theirs()
            pairs.append((ours(), other))
        else:
            own = ours()
            pairs.append((own, theirs()))
    if min(min(pair) for pair in pairs) <= 0:
        raise ValueError(f"{name}: {metric} of {pairs}; values above zero are accepted")
    ratios = sorted(own / other if higher_is_better else other / own for own, other in pairs)
    return _told(
        name=name,
        peer=peer,
        metric=metric,
        ours=statistics.median(own for own, _ in pairs),
        theirs=statistics.median(other for _, other in pairs),
        ratio=statistics.median(ratios),
        interval=(ratios[0], ratios[-1]),
        unit=unit,
        repeats=repeats,
        sizes=sizes,
        versions=versions,
        more=more or {},
    )


def quality(
    *,
    name: str,
    peer: str,
    metric: str,
    ours: npt.NDArray[np.float64],
    theirs: npt.NDArray[np.float64],
    groups: npt.NDArray[np.int32],
    repeats: int,
    sizes: Mapping[str, Any],
    versions: Mapping[str, str],
    **more: Any,
) -> dict[str, Any]:
    """Compare a metric of quality on the same cases and print one JSON line.

    Args:
        ours: per case, the mean over seeds; `theirs` likewise, of the same cases.
        groups: per case, whose it is (a member): a resample draws whole groups.
        repeats: seeds.
        more: further fields.

    Returns:
        What was printed: the fields of `compare`, where ours and theirs are means over cases and interval
        is that of their ratio (see `ratio`).
    """
    value, low, high = ratio(ours, theirs, groups)
    return _told(
        name=name,
        peer=peer,
        metric=metric,
        ours=float(ours.mean()),
        theirs=float(theirs.mean()),
        ratio=value,
        interval=(low, high),
        unit="",
        repeats=repeats,
        sizes=sizes,
        versions=versions,
        more=more,
    )


def ratio(
    ours: npt.NDArray[np.float64],
    theirs: npt.NDArray[np.float64],
    groups: npt.NDArray[np.int32],
    *,
    resamples: int = 2000,
) -> tuple[float, float, float]:
    """The ratio of two means over the same cases, and its 95% percentile bootstrap interval.

    A resample draws as many groups as there are, with all their cases, the same ones for both sides.

    Raises:
        ValueError: the other side's mean is zero, also in a resample.
    """
    _, place = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(place, weights=side) for side in (ours, theirs)])
    draw = np.random.default_rng(0)
    drawn = draw.multinomial(sums.shape[1], np.full(sums.shape[1], 1 / sums.shape[1]), resamples)
    totals = drawn @ sums.T
    if not totals[:, 1].all():
        raise ValueError("a resample's mean of the other side is zero: no ratio can be given")
    low, high = np.quantile(totals[:, 0] / totals[:, 1], [0.025, 0.975])
    return float(ours.mean() / theirs.mean()), float(low), float(high)


def _told(
    *,
    name: str,
    peer: str,
    metric: str,
    ours: float,
    theirs: float,
    ratio: float,
    interval: tuple[float, float],
    unit: str,
    repeats: int,
    sizes: Mapping[str, Any],
    versions: Mapping[str, str],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Print the line of a comparison and return it; `more` follows the interval."""
    line = {
        "name": name,
        "peer": peer,
        "metric": metric,
        "ours": _rounded(ours),
        "theirs": _rounded(theirs),
        "ratio": _rounded(ratio),
        "unit": unit,
        "repeats": repeats,
        "interval": [_rounded(each) for each in interval],
        **more,
        "sizes": dict(sizes),
        "versions": dict(versions),
        "machine": machine(),
    }
    print(json.dumps(line), flush=True)
    return line


def skipped(name: str, peer: str, reason: str) -> dict[str, Any]:
    """Print one JSON line that says why a peer is not in the comparison; returns what was printed."""
    line = {"name": name, "peer": peer, "skipped": reason}
    print(json.dumps(line), flush=True)
    return line


def venvs() -> Path:
    """Where the peers' venvs lie: $MATINEE_BENCH_VENVS, else .benchmarks/venvs in the checkout."""
    return Path(os.environ.get("MATINEE_BENCH_VENVS") or ROOT / ".benchmarks" / "venvs")


def peer_venv(name: str, requirements: Sequence[str]) -> Path:
    """A Python with `requirements` and nothing of the platform; installed on first use.

    Args:
        name: of the venv's folder. Other requirements under the same name make it anew.

    Returns:
        The path of its interpreter.

    Raises:
        PeerMissing: it cannot be installed; the text has the installer's last words.
    """
    folder = venvs() / name
    python = folder / "bin" / "python"
    marker = folder / "requirements.json"
    wanted = json.dumps([platform.python_version(), *requirements])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if marker.exists() and marker.read_text() == wanted:
            return python
        install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", *requirements]
        try:
            base = getattr(sys, "_base_executable", sys.executable)
            made = [base, "-m", "venv", "--clear", "--without-pip", str(folder)]
            subprocess.run(made, check=True, capture_output=True)
            subprocess.run(install, check=True, capture_output=True, text=True, timeout=INSTALL_S)
        except subprocess.TimeoutExpired:
            raise PeerMissing(f"{' '.join(requirements)}: not installed within {INSTALL_S:.0f} s") from None
        except subprocess.CalledProcessError as failure:
            text = failure.stderr if isinstance(failure.stderr, str) else failure.stderr.decode()
            raise PeerMissing(f"{' '.join(requirements)}: {text.strip()[-ERROR_CHARACTERS:]}") from None
        marker.write_text(wanted)
    return python


def installed(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Versions of `packages` as the interpreter `python` finds them; those it lacks are left out."""
    script = """
import importlib.metadata, json, sys
found = {each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions()}
print(json.dumps({name: found[name.lower()] for name in sys.argv[1:] if name.lower() in found}))
"""
    listed = subprocess.run(
        [str(python), "-c", script, *packages], check=True, capture_output=True, text=True, cwd="/"
    )
    versions: dict[str, str] = json.loads(listed.stdout)
    return versions


def run_peer(
    python: Path,
    script: str,
    request: Mapping[str, Any],
    *,
    cores: int,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Run `benchmarks/peers/SCRIPT.py` on `cores` cores and return its answer.

    Args:
        python: an interpreter, see `peer_venv`.
        request: reaches the script as its only argument, in JSON.
        timeout_s: it is ended after that.

    Returns:
        The JSON object in the last line it printed.

    Raises:
        PeerFailed: it failed, answered nothing, or took too long.
    """
    command = [str(python), str(ROOT / "benchmarks" / "peers" / f"{script}.py"), json.dumps(dict(request))]
    with pinned(cores):
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        _end_group(process)
        raise PeerFailed(f"{script}: not done within {timeout_s:.0f} s") from None
    except BaseException:
        _end_group(process)
        raise
    lines = output.strip().splitlines()
    if process.returncode or not lines:
        raise PeerFailed(f"{script}: exit {process.returncode}: {errors.strip()[-ERROR_CHARACTERS:]}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


@contextmanager
def pinned(cores: int) -> Iterator[set[int]]:
    """This process, all its threads and what it starts meanwhile on `cores` cores: the last it may use.

    Yields:
        The cores. Where the system cannot pin (not Linux), all stay allowed.
    """
    if sys.platform != "linux":
        yield set(range(os.cpu_count() or 1))
        return
    before = os.sched_getaffinity(0)
    chosen = set(sorted(before)[-cores:])
    _set_affinity(chosen)
    try:
        yield chosen
    finally:
        _set_affinity(before)


def _set_affinity(cores: set[int]) -> None:
    """Of every thread: `sched_setaffinity(0)` alone leaves the running ones of a thread pool as they are."""
    for task in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cores)
        except ProcessLookupError:
            continue


def _end_group(process: subprocess.Popen[str]) -> None:
    """End a peer with all that it started: it leads a process group of its own."""
    os.killpg(process.pid, 9)
    process.communicate()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _rounded(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")
