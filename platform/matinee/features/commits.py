"""What the stream has finished: offsets and counts, one small file a worker, replaced as a whole.

The lake's parts up to the committed offsets are the stream's state; replacing the file commits both. An
offset belongs to a cluster id: another cluster starts at 0 while state and counts go on. Files of workers
that no longer exist still count, so the number of workers may change between runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from matinee.errors import StorageError


@dataclass(frozen=True, kw_only=True)
class Commit:
    """One worker's file.

    Args:
        offsets: next offset to read, by cluster id and partition.
        events: accepted so far, over all clusters.
        duplicates: refused because their event id was known.
        dead_letters: refused by the validator.
        last_event_time: latest event time accepted, microseconds; 0 before the first.
    """

    offsets: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    events: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    last_event_time: int = 0


def read(folder: Path) -> dict[str, Commit]:
    """Every worker's commit by the worker's name."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text())
        offsets = {
            cluster: {int(partition): offset for partition, offset in held.items()}
            for cluster, held in stored.pop("offsets").items()
        }
        found[path.stem] = Commit(offsets=offsets, **stored)
    return found


def offsets(commits: Mapping[str, Commit], cluster: str) -> dict[int, int]:
    """Per partition the furthest offset that any worker committed for this cluster."""
    furthest: dict[int, int] = {}
    for commit in commits.values():
        for partition, offset in commit.offsets.get(cluster, {}).items():
            furthest[partition] = max(offset, furthest.get(partition, 0))
    return furthest


def write(folder: Path, name: str, commit: Commit) -> None:
    """Replace one worker's commit.

    Raises:
        StorageError: the folder cannot be written or has no room; the commit before stays.
    """
    path = folder / f"{name}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(commit)))
        draft.replace(path)
    except OSError as failure:
        raise StorageError(f"stream commit {path}: {failure.strerror}") from failure
