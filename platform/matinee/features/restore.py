"""Where a worker goes on: the state and offsets that were committed, and from the lake what they lack.

They lack views that were added or changed since, and events that another cluster's log held when it ended:
those are in the lake and nowhere else. The lake ends exactly at the committed offsets, so a view that is
filled from it goes on with the stream without a gap and without counting an event twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from matinee.events import lake
from matinee.features.commits import Commit, Commits, positions
from matinee.features.group import PartitionGroup, Views, of_partitions
from matinee.features.transforms import Genres


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A group as it was committed.

    Args:
        group: its state; every row is due.
        positions: next offset to read of each partition in the current cluster.
        offsets: by cluster and partition, what the state holds.
        events: how many the lake had and no commit had counted.
    """

    group: PartitionGroup
    positions: dict[int, int]
    offsets: dict[str, dict[int, int]]
    events: int


def restore(
    commits: Commits, events: Path, *, partitions: Sequence[int], cluster: str, views: Views, genres: Genres
) -> Restored:
    """The state of some partitions, whoever committed it.

    Args:
        events: the lake's folder; what it holds past the committed offsets of `cluster` is removed.
        cluster: id of the cluster that is about to be read.

    Raises:
        StorageError: commits or lake cannot be read or cut back.
    """
    owners = commits.owners(partitions)
    read = positions(owners, cluster)
    begin = {partition: read.get(partition, 0) for partition in partitions}
    lake.discard_after(events, cluster, begin)
    group = PartitionGroup(views=views, genres=genres)
    offsets: dict[str, dict[int, int]] = {}
    for partition, owner in owners.items():
        for name, places in owner.offsets.items():
            if partition in places:
                offsets.setdefault(name, {})[partition] = places[partition]
    held = _restore_tables(group, commits, owners)
    rest = lake.read_after(events, offsets, partitions)
    everything = lake.read_after(events, {}, partitions)
    for partition in partitions:
        current = held.get(partition, set())
        missing = [name for name in group.tables if name not in current]
        group.fold(of_partitions(everything, [partition]), missing)
        group.fold(of_partitions(rest, [partition]), sorted(current))
    group.remember(everything)
    group.publish_all()
    for (name, partition), end in lake.ends(events).items():
        if partition in begin and name != cluster:
            offsets.setdefault(name, {})[partition] = end
    return Restored(group=group, positions=begin, offsets=offsets, events=rest.num_rows)


def _restore_tables(
    group: PartitionGroup, commits: Commits, owners: Mapping[int, Commit]
) -> dict[int, set[str]]:
    """Give the group the committed tables that are still defined as they were; returns them by partition."""
    held: dict[int, set[str]] = {}
    wanted = group.tables
    for commit in {commit.name: commit for commit in owners.values()}.values():
        mine = [partition for partition, owner in owners.items() if owner is commit]
        current = {name for name, digest in commit.tables.items() if wanted.get(name) == digest}
        stale = set(commit.tables) - current
        for tables in commits.state(commit):
            kept: dict[str, pa.Table] = {n: table for n, table in tables.items() if n not in stale}
            group.restore(kept, mine)
        held.update(dict.fromkeys(mine, current))
    return held
