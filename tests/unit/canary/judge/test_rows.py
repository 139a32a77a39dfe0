"""Samples side by side are described as numpy describes each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matinee.canary.judge.rows import Rows, cohen_d, mean_ratio, outliers_iqr, outliers_sigma, pad

SAMPLES = st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), min_size=1, max_size=5)


@settings(max_examples=40)
@given(SAMPLES, st.floats(0, 1))
def test_rows_are_described_as_by_numpy(samples: list[list[float]], share: float) -> None:
    arrays = [np.array(each) for each in samples]
    rows = Rows(pad(arrays)[0])
    assert rows.count.tolist() == [len(each) for each in arrays]
    assert rows.least.tolist() == [each.min() for each in arrays]
    assert rows.most.tolist() == [each.max() for each in arrays]
    assert rows.mean == pytest.approx([each.mean() for each in arrays], abs=1e-6)
    spread = [each.std(ddof=1) if len(each) > 1 else 0.0 for each in arrays]
    assert rows.std == pytest.approx(spread, abs=1e-5)
    assert rows.quantile(share) == pytest.approx([np.quantile(each, share) for each in arrays], abs=1e-6)


def test_an_empty_sample_is_all_zero() -> None:
    (summary,) = Rows(pad([np.zeros(0)])[0]).summaries()
    assert (summary.count, summary.min, summary.mean, summary.std, summary.median) == (0, 0, 0, 0, 0)
    assert Rows(pad([])[0]).summaries() == []


def test_missing_values_do_not_count() -> None:
    rows = Rows(np.array([[np.nan, 3.0, np.nan, 1.0]]))
    assert (rows.count[0], rows.least[0], rows.most[0], rows.mean[0]) == (2, 1.0, 3.0, 2.0)


def test_a_ratio_with_a_mean_of_zero_is_undefined() -> None:
    ratio = mean_ratio(Rows(np.array([[1.0], [0.0], [3.0]])), Rows(np.array([[0.0], [1.0], [2.0]])))
    assert ratio.tolist() == pytest.approx([np.nan, np.nan, 1.5], nan_ok=True)


def test_cohens_distance_pools_unequal_samples() -> None:
    x, y = np.array([1.0, 3.0, 5.0, 7.0]), np.array([2.0, 3.0])
    pooled = np.sqrt((3 * x.var(ddof=1) + y.var(ddof=1)) / 4)
    assert cohen_d(Rows(x[None]), Rows(y[None]))[0] == pytest.approx(1.5 / pooled)


def test_fences_are_not_outliers_and_percentiles_widen_them() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0, 7.0, 7.1])  # quartiles 1.5 and 5.5: fences -4.5 and 11.5
    assert not outliers_iqr(values, 1.5).any()
    assert outliers_iqr(np.append(values, 100.0), 1.5).tolist() == [False] * 7 + [True]
    spike = np.append(np.zeros(150), [5.0, 5.0, 5.0, 50.0])
    assert outliers_iqr(spike, 3.0).sum() == 4
    assert outliers_iqr(spike, 3.0, reduce_sensitivity=True).sum() == 1
    assert outliers_sigma(np.append(np.ones(10), 20.0), 3.0).sum() == 1
