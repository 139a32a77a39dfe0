from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from matinee.models.gnn.choose import Choice, choose, full_bytes
from matinee.models.gnn.graph import Edges

NODES = {"member": 1000, "title": 500}
PAIRS = np.zeros(20_000, np.int64)
EDGES = [Edges(triple=("member", "watched", "title"), source=PAIRS, target=PAIRS)]


def chosen(asked: str = "auto", limit_mib: int = 64) -> Choice:
    return choose(NODES, EDGES, asked=asked, width=64, layers=1, batch=1024, limit_mib=limit_mib)


def test_what_was_asked_for_is_done() -> None:
    for asked in ("full", "neighbours"):
        assert chosen(asked, limit_mib=0) == Choice(sampling=asked, reason=f"sampling is set to {asked}")


def test_a_graph_that_fits_is_taken_whole() -> None:
    found = chosen()
    assert found.sampling == "full"
    assert (
        found.reason == "a step over 1,500 nodes and 20,000 edges takes about 8 MiB, within the limit of 64"
    )


def test_a_graph_that_does_not_fit_is_sampled() -> None:
    found = chosen(limit_mib=5)
    assert found.sampling == "neighbours"
    assert found.reason.endswith("takes about 8 MiB, above the limit of 5")


@given(
    width=st.integers(1, 512), layers=st.integers(1, 4), batch=st.integers(1, 4096), more=st.integers(1, 9)
)
def test_more_of_anything_never_takes_less(width: int, layers: int, batch: int, more: int) -> None:
    base = full_bytes(NODES, EDGES, width=width, layers=layers, batch=batch)
    assert full_bytes(NODES, EDGES, width=width + more, layers=layers, batch=batch) > base
    assert full_bytes(NODES, EDGES, width=width, layers=layers + more, batch=batch) > base
    assert full_bytes(NODES, EDGES, width=width, layers=layers, batch=batch + more) > base
    assert full_bytes(NODES, EDGES * (1 + more), width=width, layers=layers, batch=batch) > base
