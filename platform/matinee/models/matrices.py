"""Sparse matrices of scipy as those of torch."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy import sparse


def csr(matrix: sparse.csr_matrix, device: torch.device | str = "cpu") -> torch.Tensor:
    """`matrix` on `device`, float32 with int64 indices, of torch's CSR layout."""
    with warnings.catch_warnings():
        # torch announces that CSR is in beta; the products used are tested against others.
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data.astype(np.float32)),
            matrix.shape,
        ).to(device)
