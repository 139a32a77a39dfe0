import gzip

import numpy as np
import pytest
from benchmarks.ials import ALPHA, RIDGE, loss, movielens, same, users
from scipy import sparse

from matinee.models.cf import ials

WATCHED = sparse.random(20, 30, density=0.2, random_state=0, format="csr", dtype=np.float32)
WATCHED.data[:] = 1
FACTORS = 4


def vectors(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, FACTORS)).astype(np.float32)


def test_the_loss_weighs_watched_pairs_by_alpha_and_others_by_one():
    members, titles, watched = vectors(20), vectors(30), WATCHED.toarray()
    errors = np.where(watched, ALPHA, 1) * (watched - members @ titles.T) ** 2
    expected = errors.sum() + RIDGE * ((members**2).sum() + (titles**2).sum())
    assert loss(WATCHED, members, titles) == pytest.approx(expected, rel=1e-5)


def test_our_settings_have_the_peer_s_solution():
    titles, watched = vectors(30), WATCHED.toarray()
    config, scale = same(FACTORS)
    ours = titles / scale
    found = ials.fold_in(WATCHED, ours, config, ours.T @ ours) * scale
    for row in range(20):
        weights = np.where(watched[row], ALPHA, 1)
        system = (titles.T * weights) @ titles + RIDGE * np.eye(FACTORS)
        expected = np.linalg.solve(system, titles.T @ (ALPHA * watched[row]))
        np.testing.assert_allclose(found[row], expected, rtol=1e-3, atol=1e-4)


def test_data_become_matrices_of_ones(tmp_path):
    for name, text in (("train", "0 1 2\n1 0\n"), ("test", "0 0\n")):
        with gzip.open(tmp_path / f"{name}.txt.gz", "wt") as file:
            file.write(text)
    with gzip.open(tmp_path / "ratings.csv.gz", "wt") as file:
        file.write("userId,movieId,rating,timestamp\n7,50,3,0\n7,90,4,1\n9,20,5,2\n")
    for found in (users(tmp_path), movielens(tmp_path)):
        np.testing.assert_array_equal(found.toarray(), [[0, 1, 1], [1, 0, 0]])
