from __future__ import annotations

import numpy as np

from matinee.serving.sketch import Sketch


def test_products_are_kept_where_titles_have_no_more_dimensions() -> None:
    draw = np.random.default_rng(0)
    blocks = [draw.normal(size=(500, width)).astype(np.float32) for width in (3, 5)]
    blocks[1][:, 4] = blocks[0][:, 0]
    members = [draw.normal(size=(9, width)).astype(np.float32) for width in (3, 5)]
    sketch = Sketch.of(blocks, [np.full(3, 2.0, np.float32), np.full(5, 0.1, np.float32)], width=7, seed=0)
    assert sketch.titles.shape == (500, 7)
    whole = sum(member @ block.T for member, block in zip(members, blocks, strict=True))
    found = sketch.turned(members) @ sketch.titles.T
    # What all titles have in common is left out: it orders nothing.
    np.testing.assert_allclose(
        found - found.mean(1, keepdims=True), whole - whole.mean(1, keepdims=True), atol=1e-3
    )


def test_columns_that_members_have_much_of_are_kept_first() -> None:
    draw = np.random.default_rng(1)
    block = draw.normal(size=(2_000, 4)).astype(np.float32)
    sketch = Sketch.of([block], [np.array([100, 1, 0, 1], np.float32)], width=1, seed=0)
    member = np.array([[1, 0, 5, 0]], np.float32)
    found = (sketch.turned([member]) @ sketch.titles.T).ravel()
    assert np.corrcoef(found, block[:, 0])[0, 1] > 0.99
