"""EASE: a linear model from every title to every other, in closed form.

Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019: with P = (X^T X + l I)^-1 the weights
are -P / diag(P) by column, and zero on the diagonal. Dropout of the input adds p / (1 - p) diag(X^T X) to
what is inverted: Steck, "Autoencoders that don't overfit towards the identity", NeurIPS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse

from matinee.models.cf.config import CfConfig

Weights = npt.NDArray[np.float32]

BYTES_A_PAIR = 20
"""Peak memory of `fit` for each pair of titles: two matrices in double precision, the result in single."""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """What scoring needs: `weights`, float32 [titles, titles], zero on the diagonal.

    They are held by row: a product with sparse rows would else copy the whole matrix each time.
    """

    weights: Weights

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", np.ascontiguousarray(self.weights))

    def score(self, rows: sparse.csr_matrix) -> Weights:
        """Scores, float32 [m, titles], of rows of weights at watched titles, float32 [m, titles]."""
        scores: Weights = rows @ self.weights
        return scores

    def arrays(self) -> dict[str, Weights]:
        """For saving."""
        return {"weights": self.weights}


def fit(watched: sparse.csr_matrix, config: CfConfig) -> Linear:
    """The weights of every title for every other.

    The inverse is taken in double precision on `config.device`, by all threads; peak memory is
    `BYTES_A_PAIR` times titles squared.

    Args:
        watched: float32 [members, titles], 1 where watched.
    """
    import torch

    counts = torch.from_numpy((watched.T @ watched).toarray()).to(config.device, torch.float64)
    diagonal = counts.diagonal()
    diagonal *= 1 + config.ease_dropout / (1 - config.ease_dropout)
    diagonal += config.ease_regularisation
    torch.linalg.cholesky(counts, out=counts)
    inverse = torch.cholesky_inverse(counts, out=counts)
    inverse /= -inverse.diagonal().clone()
    inverse.fill_diagonal_(0)
    return Linear(weights=inverse.to("cpu", torch.float32).numpy())
