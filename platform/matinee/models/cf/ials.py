"""iALS: ridge regressions of members and titles in turn, over watched pairs and, by a Gram matrix, all.

Hu, Koren, Volinsky, "Collaborative filtering for implicit feedback datasets", 2008; penalty scaled by
frequency: Rendle, Krichene, Zhang, Koren, "Revisiting the performance of iALS on item recommendation
benchmarks", 2021. Training takes a few warm-started conjugate gradient steps a row (Takács, Pilászy, Tikk,
"Applications of the conjugate gradient method for implicit feedback collaborative filtering", 2011), here in
the eigenbasis of the fixed side's Gram matrix: there its product is a scaling, whose inverse is also a good
preconditioner, so that a step reads the watched vectors and nothing else. Fold-in solves exactly.

Rows of like length form blocks, solved one after the other by torch's threads, on the CPU or a GPU. How rows
are divided into blocks, and on how many threads, changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from matinee.models.base import Progress
from matinee.models.cf.config import CfConfig

Vectors = npt.NDArray[np.float32]
PADDING = 1.3
"""Longest row of a block over its shortest, about: padding beyond it costs more than another block."""
GPU_BLOCK_BYTES = 2**30
"""The vectors gathered at once on a GPU, whose memory is as fast as a cache."""
CHUNK = 2048
"""Rows turned at once."""
TINY = 1e-30
"""Keeps a row that is solved already, its residual all zero, where it is."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some rows of like length, b of them, padded to the longest, l.

    Args:
        rows: int64 [b], their places in the matrix.
        columns: int32 [b * l], 0 where padded.
        weights: float32 [b, 1, l], 0 where padded.
        ridge: float32 [b, 1], the penalty of each row.
    """

    rows: Tensor
    columns: Tensor
    weights: Tensor
    ridge: Tensor


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """The side that is held fixed, n vectors, in the eigenbasis of its Gram matrix.

    Args:
        vectors: float32 [n, factors], in that basis.
        spectrum: float32 [factors], the eigenvalues times the weight of unobserved pairs.
        basis: float32 [factors, factors], the eigenvectors as columns.
    """

    vectors: Tensor
    spectrum: Tensor
    basis: Tensor


Solver = Callable[[Tensor, Fixed], None]
"""Moves the vectors of a side, in place, towards their best given the other."""
Place = Callable[[Sequence[Block], int], Solver]
"""Makes the solver of these blocks with so many conjugate gradient steps."""


def fit(
    watched: sparse.csr_matrix,
    config: CfConfig,
    seed: int,
    progress: Progress | None = None,
    start: Vectors | None = None,
    publish: Callable[[Vectors], None] = lambda titles: None,
    place: Place | None = None,
) -> Vectors:
    """Title vectors after `sweeps` rounds, float32 [titles, factors]; zero for titles nobody watched.

    Args:
        watched: weights of watched pairs, float32 [members, titles].
        seed: of the random start.
        start: title vectors to start from instead, rows of NaN for titles that have none yet; members then
            start from what the others say of them.
        publish: given the title vectors after every round.
        place: where blocks are solved; by default in this process.
    """
    scale = config.init_scale / np.sqrt(config.factors)
    drawn = np.random.default_rng(seed).normal(0, scale, (watched.shape[1], config.factors))
    titles = drawn.astype(np.float32)
    members = np.zeros((watched.shape[0], config.factors), dtype=np.float32)
    if start is not None:
        known = np.nan_to_num(start)
        titles = np.where(np.isnan(start), titles, start)
        members = fold_in(watched, known, config, known.T @ known)
    for done, (_, moved) in enumerate(rounds(watched, members, titles, config, place), 1):
        titles = moved.copy()
        publish(titles)
        if progress:
            progress(done, config.sweeps, {})
    return titles


def rounds(
    watched: sparse.csr_matrix,
    members: Vectors,
    titles: Vectors,
    config: CfConfig,
    place: Place | None = None,
) -> Iterator[tuple[Vectors, Vectors]]:
    """Members' and titles' vectors after each of `config.sweeps` rounds from those given.

    A round moves the members by `config.steps` conjugate gradient steps, then the titles; neither raises the
    objective. Rows without a watched pair are zero, which is their solution. The next round overwrites what
    is yielded.
    """
    sides = [torch.tensor(given, device=config.device) for given in (members, titles)]
    solvers = []
    for matrix, side in zip((watched, watched.T.tocsr()), sides, strict=True):
        parts = blocks(matrix, config, device=config.device)
        solvers.append((place or in_process)(parts, config.steps))
        side[np.diff(matrix.indptr) == 0] = 0
    for _ in range(config.sweeps):
        for solver, side, other in zip(solvers, sides, reversed(sides), strict=True):
            solver(side, hold(other, config.unobserved))
        yield sides[0].cpu().numpy(), sides[1].cpu().numpy()


def blocks(
    watched: sparse.csr_matrix, config: CfConfig, *, floor: int = 1, device: str = "cpu"
) -> list[Block]:
    """The rows of `watched` that have any pair, shortest first, in blocks of about `config.block_bytes`, or
    on a GPU `GPU_BLOCK_BYTES`.

    Args:
        floor: a row counts as at least so many pairs.
    """
    pairs = (config.block_bytes if device == "cpu" else GPU_BLOCK_BYTES) // (4 * config.factors)
    counts = np.diff(watched.indptr)
    order = np.argsort(counts, kind="stable")
    ordered = counts[order]
    found: list[Block] = []
    first = int(np.searchsorted(ordered, 1))
    while first < len(order):
        longest = int(PADDING * ordered[first]) + 1
        room = first + max(1, pairs // max(longest, floor))
        last = min(int(np.searchsorted(ordered, longest, side="right")), room)
        chosen = order[first:last]
        slots = np.arange(ordered[last - 1])
        held = slots < counts[chosen, None]
        places = np.where(held, watched.indptr[chosen, None] + slots, 0)
        weights = np.where(held, watched.data[places], 0).astype(np.float32)
        frequency = weights.sum(1, keepdims=True) + config.unobserved * watched.shape[1]
        ridge = config.regularisation * frequency**config.frequency_exponent
        columns = np.where(held, watched.indices[places], 0).astype(np.int32)
        found.append(
            Block(
                rows=torch.from_numpy(chosen).to(device),
                columns=torch.from_numpy(columns.ravel()).to(device),
                weights=torch.from_numpy(weights[:, None]).to(device),
                ridge=torch.from_numpy(ridge.astype(np.float32)).to(device),
            )
        )
        first = last
    return found


def hold(vectors: Tensor, unobserved: float) -> Fixed:
    """A side held fixed while the other is solved; `vectors`, float32 [n, factors], are turned in place."""
    spectrum, basis = torch.linalg.eigh(vectors.T @ vectors)
    for chunk in torch.split(vectors, CHUNK):
        chunk.copy_(chunk @ basis)
    return Fixed(vectors=vectors, spectrum=unobserved * spectrum.clamp_min(0), basis=basis)


def in_process(parts: Sequence[Block], steps: int) -> Solver:
    """The solver in this process."""
    return partial(solve_rows, parts, steps)


def solve_rows(parts: Sequence[Block], steps: int, vectors: Tensor, fixed: Fixed) -> None:
    """Move the rows of `parts` towards their ridge regression, and into the basis of the fixed side.

    Args:
        vectors: float32 [rows, factors], to start from; overwritten.
    """
    for part in parts:
        vectors.index_copy_(0, part.rows, _descend(part, vectors.index_select(0, part.rows), fixed, steps))


def _descend(part: Block, start: Tensor, fixed: Fixed, steps: int) -> Tensor:
    """Preconditioned conjugate gradients of a block's rows."""
    vectors = fixed.vectors.index_select(0, part.columns).view(len(start), -1, start.shape[1])
    diagonal = fixed.spectrum + part.ridge

    # A row times a matrix, never a matrix times a column: batched products are several times as fast so.
    def predict(rows: Tensor) -> Tensor:
        return torch.bmm(rows[:, None], vectors.transpose(1, 2))

    def gather(weighted: Tensor) -> Tensor:
        return torch.bmm(weighted, vectors)[:, 0]

    solution = start @ fixed.basis
    residual = gather(part.weights * (1 - predict(solution))).addcmul_(diagonal, solution, value=-1)
    direction = scaled = residual / diagonal
    norm = _dot(residual, scaled)
    for left in reversed(range(steps)):
        predicted, ridged = predict(direction), diagonal * direction
        weighted = part.weights * predicted
        length = norm / (_dot(weighted[:, 0], predicted[:, 0]) + _dot(ridged, direction)).clamp_min(TINY)
        solution.addcmul_(length, direction)
        if left:
            residual.addcmul_(length, gather(weighted).add_(ridged), value=-1)
            scaled = residual / diagonal
            previous, norm = norm, _dot(residual, scaled)
            direction = torch.addcmul(scaled, norm / previous.clamp_min(TINY), direction)
    return solution


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum(1, keepdim=True)


def fold_in(watched: sparse.csr_matrix, titles: Vectors, config: CfConfig, gram: Vectors) -> Vectors:
    """The exact ridge regression of each row of `watched`, float32 [rows, factors], by Cholesky on the CPU.

    Args:
        watched: weights of watched pairs, [rows, titles].
        titles: float32 [titles, factors].
        gram: `titles.T @ titles`.

    Raises:
        torch.linalg.LinAlgError: a system is singular: the penalty is zero.
    """
    held = torch.from_numpy(titles)
    factors = held.shape[1]
    everything = config.unobserved * torch.from_numpy(gram)

    def exact(part: Block) -> Tensor:
        vectors = held.index_select(0, part.columns).view(len(part.rows), -1, factors)
        weighted = vectors * part.weights.transpose(1, 2)
        system = torch.baddbmm(everything, weighted.transpose(1, 2), vectors)
        system.diagonal(dim1=1, dim2=2).add_(part.ridge)
        return torch.cholesky_solve(weighted.sum(1)[:, :, None], torch.linalg.cholesky(system))[:, :, 0]

    result = np.zeros((watched.shape[0], factors), dtype=np.float32)
    for part in blocks(watched, config, floor=factors):
        result[part.rows.numpy()] = exact(part).numpy()
    return result
