"""The containers against dicts and lists."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from matinee.features.aggregates.keyed import Arena, Index, Slots, Texts, distinct, spread
from matinee.features.exact import stable_hash


@given(st.lists(st.sets(st.integers(0, 2**64 - 1) | st.integers(0, 20), max_size=40), max_size=6))
def test_index_finds_what_was_added_and_nothing_else(batches):
    # Places of 0 and 1 are one: hashes of texts meet no likelier there than anywhere.
    index, held = Index(), {}
    for batch in batches:
        new = np.array([each for each in batch if each > 1 and each not in held], np.uint64)
        places = np.arange(len(held), len(held) + len(new))
        index.add(new, places)
        held.update(zip(new.tolist(), places.tolist(), strict=True))
        asked = np.array([*held, *(each for each in range(2, 30) if each not in held)], np.uint64)
        assert index.find(asked).tolist() == [held.get(each, -1) for each in asked.tolist()]


def test_index_grows_and_probes_past_hashes_with_the_same_place():
    index = Index()
    hashes = (np.arange(1, 5001).astype(np.uint64) << np.uint64(20)) + np.uint64(5)
    for start in range(0, 5000, 500):
        index.add(hashes[start : start + 500], np.arange(start, start + 500))
    assert index.find(hashes).tolist() == list(range(5000))
    assert index.find(hashes + np.uint64(1)).tolist() == [-1] * 5000


@given(st.lists(st.lists(st.text(max_size=9), unique=True, max_size=30), max_size=5))
def test_texts_keep_each_text_once_in_order_of_arrival(batches):
    texts, held = Texts(), {}
    for batch in batches:
        array = pa.array(["sliced off", *batch], pa.string())[1:]
        codes = texts.add(stable_hash(array), array)
        for each in batch:
            held.setdefault(each, len(held))
        assert codes.tolist() == [held[each] for each in batch]
    codes = np.arange(len(held))[::-1]
    assert texts.take(codes).to_pylist() == list(held)[::-1]
    assert texts.find(texts.hashes(codes)).tolist() == codes.tolist()


@given(st.lists(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=10), max_size=5))
def test_slots_of_a_key_lie_in_any_of_its_partitions(batches):
    slots, held = Slots(), {}
    for batch in batches:
        new = sorted(batch - held.keys())
        codes, partitions = np.array(new, np.int64).reshape(-1, 2).T
        hashes = codes.astype(np.uint64) * np.uint64(7919)
        found = slots.add(hashes, partitions, codes)
        assert slots.find(hashes, partitions).tolist() == found.tolist()
        held.update(zip(new, found.tolist(), strict=True))
    keys = sorted({key for key, _ in held})
    found = slots.of(np.array(keys, np.int64))
    assert sorted(found.tolist()) == sorted(held.values())
    assert {(int(slots.code[s]), int(slots.partition[s])) for s in found} == held.keys()
    alone = {key for key in keys if sum(key == other for other, _ in held) == 1}
    assert {int(slots.code[s]) for s in found[slots.alone(found)]} == alone
    assert slots.of(np.array([99])).tolist() == []


@given(st.data())
def test_arena_holds_the_rows_of_each_slot_in_order(data):
    arena, held = Arena({"a": np.int64, "b": np.uint8}), {}
    for _ in range(data.draw(st.integers(1, 12))):
        wanted = data.draw(st.dictionaries(st.integers(0, 8), st.integers(0, 40), min_size=1, max_size=5))
        slots, counts = np.array(list(wanted)), np.array(list(wanted.values()))
        values = np.arange(counts.sum()) + data.draw(st.integers(0, 100))
        rows = {"a": values, "b": (values % 256).astype(np.uint8)}
        fits = arena.fits(slots, counts)
        append = fits.all() and data.draw(st.booleans())
        (arena.append if append else arena.replace)(slots, counts, rows)
        at = 0
        for slot, count in wanted.items():
            mine = values[at : at + count].tolist()
            held[slot] = (held.get(slot, []) if append else []) + mine
            at += count
    asked = np.array([*held, 50])
    counts, rows = arena.gather(asked)
    assert counts.tolist() == [len(held.get(slot, [])) for slot in asked.tolist()]
    assert rows["a"].tolist() == [value for mine in held.values() for value in mine]
    assert rows["b"].tolist() == [value % 256 for mine in held.values() for value in mine]
    assert arena.slots().tolist() == sorted(slot for slot, mine in held.items() if mine)


def test_arena_gives_garbage_back():
    arena = Arena({"a": np.int64})
    slots = np.arange(100)
    for count in [*range(1, 60), *range(60, 1, -1)]:
        arena.replace(slots, np.full(100, count), {"a": np.arange(100 * count)})
    counts, rows = arena.gather(slots)
    assert counts.tolist() == [2] * 100
    assert rows["a"].tolist() == list(range(200))
    assert arena.nbytes < 8 * 100 * 60 * 8


@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(0, 4)), max_size=10))
def test_spread_lists_each_range_in_turn(ranges):
    starts, counts = np.array(ranges, np.int64).reshape(-1, 2).T
    assert spread(starts, counts).tolist() == [at + i for at, count in ranges for i in range(count)]


@given(st.lists(st.integers(-5, 5)))
def test_distinct_is_sorted(values):
    assert distinct(np.array(values, np.int64)).tolist() == sorted(set(values))
