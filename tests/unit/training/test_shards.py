from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from contracts.model_contract import training_set
from hypothesis import given
from hypothesis import strategies as st

from matinee.models.base import TrainingSet
from matinee.schema import Features, Interactions, Outcomes
from matinee.training.shards import blocks, can_shard, common, gathered, shard_of_member


def drawn(rows: int, members: int, features: int | None, seed: int = 0) -> TrainingSet:
    generator = np.random.default_rng(seed)
    whole = training_set()
    interactions = Interactions(
        member_ids=[f"m{i}" for i in range(members)],
        title_ids=whole.interactions.title_ids,
        member=generator.integers(members, size=rows).astype(np.int32),
        title=generator.integers(48, size=rows).astype(np.int32),
        time=np.sort(generator.integers(1_000, size=rows)),
        value=np.where(generator.random(rows) < 0.5, np.nan, 3).astype(np.float32),
    )
    values = generator.random((rows, features or 0)).astype(np.float32)
    told = None if features is None else Features(names=[f"f{i}" for i in range(features)], values=values)
    return replace(whole, interactions=interactions, member_features=told)


def by_member(data: TrainingSet) -> dict[str, list[tuple[object, ...]]]:
    held = data.interactions
    told = data.member_features
    found: dict[str, list[tuple[object, ...]]] = {}
    for row in range(len(held)):
        values = () if told is None else tuple(told.values[row].tolist())
        entry = (held.title[row], held.time[row], str(held.value[row]), *values)
        found.setdefault(held.member_ids[held.member[row]], []).append(entry)
    return found


@given(
    st.integers(0, 60),
    st.integers(1, 12),
    st.sampled_from([None, 0, 2]),
    st.integers(2, 4),
    st.integers(1, 20),
    st.integers(0, 9),
)
def test_shards_are_the_members_dealt_out_whole(rows, members, features, shards, size, seed) -> None:
    data = drawn(rows, members, features, seed)
    if not can_shard(data, shards):
        assert len(by_member(data)) < shards
        return
    shared = common(data)
    assert len(shared.interactions) == 0
    found = [gathered(shared, tables[::-1]) for tables in blocks(data, shards, rows=size)]
    merged: dict[str, list[tuple[object, ...]]] = {}
    for shard in found:
        assert shard.sharded
        assert shard.catalogue is data.catalogue
        assert shard.title_features is data.title_features
        assert 0 < len(shard.interactions) < rows
        assert len(shard.interactions.member_ids) == len(np.unique(shard.interactions.member))
        assert (np.diff(shard.interactions.time) >= 0).all()
        assert not merged.keys() & by_member(shard).keys()
        merged |= by_member(shard)
    assert merged == by_member(data)
    expected, one = data.interactions, found[0].interactions
    for name in ("member", "title", "time", "value"):
        assert getattr(one, name).dtype == getattr(expected, name).dtype
    if features is not None:
        assert found[0].member_features.values.dtype == np.float32
        assert found[0].member_features.names == data.member_features.names


def test_shards_hold_nearly_as_many_interactions_each() -> None:
    data = drawn(0, 1, None)
    lengths = (1000 / np.arange(1, 301)).astype(int) + 1
    member = np.repeat(np.arange(300), lengths).astype(np.int32)
    held = replace(data.interactions, member_ids=[str(i) for i in range(300)], member=member)
    for shards in (2, 3, 8):
        owner = shard_of_member(held, shards)
        sizes = np.bincount(owner[member])
        assert len(sizes) == shards
        assert sizes.max() - sizes.min() <= lengths[0] - lengths[shards - 1]


def test_a_block_has_no_more_rows_than_asked() -> None:
    tables = blocks(drawn(100, 9, 2), 2, rows=7)
    assert max(table.num_rows for shard in tables for table in shard) == 7
    assert isinstance(tables[0][0], pa.Table)


@pytest.mark.parametrize(("members", "shards", "expected"), [(3, 3, True), (3, 4, False), (9, 1, False)])
def test_sharding_needs_a_member_each(members: int, shards: int, expected: bool) -> None:
    assert can_shard(drawn(200, members, None), shards) is expected


@given(st.integers(0, 40), st.integers(2, 3), st.integers(1, 9), st.integers(0, 9))
def test_outcomes_go_with_their_members(shown: int, shards: int, size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    outcomes = Outcomes(
        member=generator.integers(12, size=shown).astype(np.int32),
        title=generator.integers(48, size=shown).astype(np.int32),
        time=np.sort(generator.integers(1_000, size=shown)),
        ended=generator.integers(1_000, 2_000, size=shown),
        **{name: generator.random(shown).astype(np.float32) for name in ("click", "play", "completion")},
    )
    data = replace(drawn(30, 12, None, seed), outcomes=outcomes)
    found = [gathered(common(data), tables) for tables in blocks(data, shards, rows=size)]
    merged = {}
    for shard in found:
        assert shard.outcomes is not None
        assert [each.dtype for each in vars(shard.outcomes).values()] == [
            each.dtype for each in vars(outcomes).values()
        ]
        merged |= told(shard)
    assert merged == {name: rows for name, rows in told(data).items() if name in by_member(data)}


def told(data: TrainingSet) -> dict[str, list[tuple[object, ...]]]:
    assert data.outcomes is not None
    found: dict[str, list[tuple[object, ...]]] = {}
    for member, *row in zip(*vars(data.outcomes).values(), strict=True):
        found.setdefault(data.interactions.member_ids[member], []).append(tuple(row))
    return found
