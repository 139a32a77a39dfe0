"""A study: the trials of one search, kept line by line so that any end of the process loses none of them.

What is kept is the search's only state: searcher, scheduler and budget are worked out from it, and a
command that was killed goes on when it is given again. One process writes at a time.
"""

from __future__ import annotations

import fcntl
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from matinee.errors import InvalidInput, StorageError, Unavailable

End = Literal["finished", "stopped", "failed", "lost"]
"""Fitted whole; given up by the scheduler; it raised; its process ended before it."""

WHOLE = 100.0
"""Percent of its fit at which a trial's figure is final."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """How good a trial was at one point of its fit.

    Args:
        percent: of the fit's own steps.
        value: of the figure searched for, higher is better.
        at: seconds of the epoch.
    """

    percent: float
    value: float
    at: float


@dataclass(kw_only=True)
class Trial:
    """One point of the space and what became of it.

    Args:
        id: Ray Tune's.
        point: values by field of the config.
        at: seconds of the epoch at which it began.
        reports: in order.
        end: None while it runs.
        reason: why it failed.
    """

    id: str
    point: Mapping[str, Any]
    at: float
    reports: list[Report] = field(default_factory=list)
    end: End | None = None
    reason: str = ""

    @property
    def value(self) -> float | None:
        """The final figure; None where the fit was not finished."""
        return self.reports[-1].value if self.end == "finished" else None

    @property
    def seconds(self) -> float:
        """From its start to its last report."""
        return self.reports[-1].at - self.at if self.reports else 0.0


class Study:
    """The journal of a study, open for writing; made by `opened`.

    Args:
        name: the folder's.
        id: of this study and no other, wherever it is told of.
        trials: by id, in the order in which they began.
        spent_s: seconds that searching took so far, over all processes that did.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.name, self.id = folder.name, identity
        self.trials: dict[str, Trial] = {}
        self.spent_s = 0.0
        self._path = folder / "journal.jsonl"
        self._since = time.monotonic()
        if self._path.exists():
            # What follows the last line's end was cut off with its process.
            whole = self._path.read_bytes().rpartition(b"\n")
            self._path.write_bytes(b"".join(whole[:2]))
            for line in whole[0].splitlines():
                self._read(json.loads(line))
        self._before = self.spent_s

    def begin(self, trial: str, point: Mapping[str, Any]) -> None:
        """A trial begins, anew if its process was lost."""
        self._note({"trial": trial, "point": dict(point)})

    def report(self, trial: str, percent: float, value: float) -> None:
        """A trial was judged."""
        self._note({"trial": trial, "percent": percent, "value": value})

    def end(self, trial: str, end: End, reason: str = "") -> None:
        """A trial is over."""
        self._note({"trial": trial, "end": end, "reason": reason})

    def spend(self) -> None:
        """Note the time that went by."""
        self._note({})

    def _note(self, line: dict[str, Any]) -> None:
        line |= {"at": time.time(), "spent": self._before + time.monotonic() - self._since}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._read(line)

    def _read(self, line: Mapping[str, Any]) -> None:
        self.spent_s = line["spent"]
        if "point" in line:
            self.trials[line["trial"]] = Trial(id=line["trial"], point=line["point"], at=line["at"])
        elif "value" in line:
            self.trials[line["trial"]].reports.append(
                Report(percent=line["percent"], value=line["value"], at=line["at"])
            )
        elif "end" in line:
            trial = self.trials[line["trial"]]
            trial.end, trial.reason = line["end"], line["reason"]


@contextmanager
def opened(folder: Path, pins: Mapping[str, Any]) -> Iterator[Study]:
    """Open a study, or start it, for the time of the block.

    Args:
        folder: of the study; its name is the study's.
        pins: what its trials have in common, as JSON holds it: data, model, base config, space, seed.

    Raises:
        InvalidInput: the study was started with other pins; names the first that differs.
        Unavailable: another process works on it.
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as failure:
        raise StorageError(f"study {folder} cannot be written: {failure}") from failure
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"another process works on study {folder.name}; wait for its end") from None
        yield Study(folder, _pinned(folder, json.loads(json.dumps(pins))))


def _pinned(folder: Path, pins: Mapping[str, Any]) -> str:
    """The study's id, once its pins are known to be these."""
    path = folder / "study.json"
    if not path.exists():
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps({"id": uuid.uuid4().hex, "pins": pins}, indent=1))
        draft.replace(path)
    held = json.loads(path.read_text())
    other = next((key for key in pins if held["pins"].get(key) != pins[key]), None)
    if other is not None:
        raise InvalidInput(
            f"study {folder.name} was started with other {other}: its trials cannot be compared with new "
            "ones; give another --name"
        )
    return str(held["id"])


def unfinished(trials: Sequence[Trial]) -> list[Mapping[str, Any]]:
    """Points whose trials were cut off with their process, and that were not tried to an end since."""
    settled = [trial.point for trial in trials if trial.end not in (None, "lost")]
    found: list[Mapping[str, Any]] = []
    for trial in trials:
        if trial.point not in settled and trial.point not in found:
            found.append(trial.point)
    return found


def best(trials: Sequence[Trial]) -> list[Trial]:
    """The finished trials, best first; equal ones in the order in which they began."""
    finished = [trial for trial in trials if trial.value is not None]
    return sorted(finished, key=lambda trial: -(trial.value or 0.0))
