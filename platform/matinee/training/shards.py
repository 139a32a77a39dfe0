"""A training set in shards, each with whole members, so that no worker needs to hold all of it.

A shard crosses to its worker as Arrow tables, the blocks of a Ray dataset; what is not by member (the
catalogue, title features) goes to every worker whole. Nothing here knows Ray.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from matinee.models.base import TrainingSet
from matinee.schema import Features, Interactions, Outcomes

BLOCK_ROWS = 1 << 18
"""Most interactions of a block."""


def can_shard(data: TrainingSet, shards: int) -> bool:
    """Whether there is more than one shard and each gets a member."""
    return shards > 1 and len(np.unique(data.interactions.member)) >= shards


def shard_of_member(interactions: Interactions, shards: int) -> npt.NDArray[np.int64]:
    """Each member's shard, int64 [members]: members by length of history are dealt out there and back, so
    that shards hold nearly as many interactions each."""
    counts = np.bincount(interactions.member, minlength=len(interactions.member_ids))
    turn = np.arange(len(counts)) % (2 * shards)
    found = np.empty(len(counts), dtype=np.int64)
    found[np.argsort(-counts, kind="stable")] = np.minimum(turn, 2 * shards - 1 - turn)
    return found


def blocks(data: TrainingSet, shards: int, *, rows: int = BLOCK_ROWS) -> list[list[pa.Table]]:
    """By shard, tables of at most `rows` interactions: row (place in the whole set), member, title, time,
    value, features where the set has member features, and where it has outcomes those of the member, with
    the member's first row; members without a row teach nothing and are left out."""
    held = data.interactions
    owner = shard_of_member(held, shards)[held.member]
    return [_sliced(_table(data, np.flatnonzero(owner == shard)), rows) for shard in range(shards)]


def common(data: TrainingSet) -> TrainingSet:
    """What every shard shares: the set without interactions, outcomes and features, whose names stay."""
    features = data.member_features
    nothing = np.zeros(0, np.intp)
    return replace(
        data,
        interactions=replace(data.interactions.take(nothing), member_ids=[]),
        outcomes=None,
        member_features=features and Features(names=features.names, values=features.values[nothing]),
    )


def gathered(shared: TrainingSet, tables: Iterable[pa.Table]) -> TrainingSet:
    """The sharded set of a shard's blocks, given in any order; rows in time order, members counted anew."""
    table = pa.concat_tables(tables).unify_dictionaries().sort_by("row").combine_chunks()
    member = table["member"].chunk(0)
    features = shared.member_features
    if features is not None:
        values = table["features"].chunk(0).flatten().to_numpy().reshape(len(table), len(features.names))
        features = Features(names=features.names, values=values)
    return replace(
        shared,
        interactions=Interactions(
            member_ids=member.dictionary.to_pylist(),
            title_ids=shared.interactions.title_ids,
            member=member.indices.to_numpy(),
            title=table["title"].to_numpy(),
            time=table["time"].to_numpy(),
            value=table["value"].to_numpy(),
        ),
        member_features=features,
        outcomes=_detached(table["outcomes"].chunk(0), member) if "outcomes" in table.column_names else None,
        sharded=True,
    )


def _table(data: TrainingSet, rows: npt.NDArray[np.intp]) -> pa.Table:
    held = data.interactions.take(rows)
    members, position = np.unique(held.member, return_inverse=True)
    names = pa.array([held.member_ids[member] for member in members], pa.string())
    columns = {
        "row": pa.array(rows),
        "member": pa.DictionaryArray.from_arrays(pa.array(position.astype(np.int32)), names),
        "title": pa.array(held.title),
        "time": pa.array(held.time),
        "value": pa.array(held.value),
    }
    if data.member_features is not None:
        values = data.member_features.values[rows]
        width = pa.list_(pa.float32(), values.shape[1])
        columns["features"] = pa.FixedSizeListArray.from_buffers(
            width, len(rows), [None], children=[pa.array(values.ravel())]
        )
    if data.outcomes is not None:
        columns["outcomes"] = _attached(data.outcomes, held.member)
    return pa.table(columns)


def _attached(outcomes: Outcomes, member: npt.NDArray[np.int32]) -> pa.ListArray:
    """The outcomes of the members of rows, each in the list of its member's first row."""
    members, first = np.unique(member, return_index=True)
    known = outcomes.take(np.isin(outcomes.member, members))
    place = first[np.searchsorted(members, known.member)]
    order = np.argsort(place, kind="stable")
    told = pa.table(vars(known)).drop(["member"]).take(pa.array(order)).to_struct_array()
    offsets = np.searchsorted(place[order], np.arange(len(member) + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), told.combine_chunks())


def _detached(lists: pa.ListArray, member: pa.DictionaryArray) -> Outcomes:
    """What `_attached` put into lists, for rows of these members."""
    told = lists.flatten()
    owner = member.indices.to_numpy()[pc.list_parent_indices(lists).to_numpy()]
    columns = {field.name: told.field(field.name).to_numpy() for field in told.type}
    return Outcomes(member=owner, **columns)


def _sliced(table: pa.Table, rows: int) -> list[pa.Table]:
    return [table.slice(first, rows) for first in range(0, table.num_rows, rows)]
