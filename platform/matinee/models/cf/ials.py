"""iALS: alternating ridge regressions over watched pairs and, by their Gram matrix, all others.

Hu, Koren, Volinsky, "Collaborative filtering for implicit feedback datasets", 2008; Rendle, Krichene,
Zhang, Koren, "Revisiting the performance of iALS on item recommendation benchmarks", 2021.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import sparse

from matinee.models.base import Progress
from matinee.models.cf.config import CfConfig

Vectors = npt.NDArray[np.float32]


def fit(
    watched: sparse.csr_matrix,
    config: CfConfig,
    seed: int,
    progress: Progress | None = None,
    start: Vectors | None = None,
    publish: Callable[[Vectors], None] = lambda titles: None,
) -> Vectors:
    """Title vectors, float32 [titles, factors], after `sweeps` rounds of exact solves of rows and titles.

    Args:
        watched: float32 [members, titles], 1 where watched.
        seed: of the random start.
        start: title vectors to start from instead, rows of NaN for titles that have none yet.
        publish: given the title vectors after every sweep.
    """
    scale = config.init_scale / np.sqrt(config.factors)
    drawn = np.random.default_rng(seed).normal(0, scale, (watched.shape[1], config.factors))
    titles = drawn.astype(np.float32)
    if start is not None:
        titles = np.where(np.isnan(start), titles, start)
    watchers = watched.T.tocsr()
    for sweep in range(config.sweeps):
        titles = solve(watchers, solve(watched, titles, config), config)
        publish(titles)
        if progress:
            progress(sweep + 1, config.sweeps, {})
    return titles


def fold_in(rows: sparse.csr_matrix, titles: Vectors, config: CfConfig, gram: Vectors) -> Vectors:
    """Vectors of members, float32 [m, factors], from their histories' weights, float32 [m, titles].

    Args:
        gram: `titles.T @ titles`.
    """
    return solve(rows, titles, config, gram=gram)


def solve(rows: sparse.csr_matrix, other: Vectors, config: CfConfig, gram: Vectors | None = None) -> Vectors:
    """The vectors that fit `rows` best given the other side's, float32 [rows, factors].

    Args:
        rows: weights of watched pairs, [rows, len(other)].
        other: float32 [columns, factors].
        gram: `other.T @ other` where it is at hand.
    """
    gram = other.T @ other if gram is None else gram
    counts = np.diff(rows.indptr)
    order = np.argsort(counts, kind="stable")
    result = np.zeros((rows.shape[0], other.shape[1]), dtype=np.float32)
    start = int(np.searchsorted(counts[order], 1))
    while start < len(order):
        # Rows of like length go together: blocks are padded to their longest row.
        longest = min(counts[order[min(start + config.block, len(order)) - 1]], 2 * counts[order[start]] + 8)
        stop = min(int(np.searchsorted(counts[order], longest, side="right")), start + config.block)
        chosen = order[start:stop]
        result[chosen] = _solve_block(rows, chosen, other, gram, config)
        start = stop
    return result


def _solve_block(
    rows: sparse.csr_matrix,
    chosen: npt.NDArray[np.intp],
    other: Vectors,
    gram: Vectors,
    config: CfConfig,
) -> Vectors:
    counts = np.diff(rows.indptr)[chosen]
    slots = np.arange(counts.max())
    held = slots[None, :] < counts[:, None]
    places = np.where(held, rows.indptr[chosen][:, None] + slots[None, :], 0)
    vectors = other[rows.indices[places]]
    weights = np.where(held, rows.data[places], 0).astype(np.float32)
    weighted = vectors * weights[:, :, None]
    frequency = weights.sum(1) + config.unobserved * len(other)
    ridge = config.regularisation * frequency**config.frequency_exponent
    system = weighted.transpose(0, 2, 1) @ vectors + config.unobserved * gram
    diagonal = np.arange(other.shape[1])
    system[:, diagonal, diagonal] += ridge[:, None]
    solution: Vectors = np.linalg.solve(system, weighted.sum(1)[:, :, None])[:, :, 0]
    return solution
