from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from matinee.models.dnn.losses import binary, calibrated_exponent, sampled_softmax
from matinee.models.gradients import next_titles_loss


def test_the_sampled_softmax_is_the_whole_one_where_the_others_are_drawn() -> None:
    torch.manual_seed(0)
    members, titles, bias = torch.randn(1, 4), torch.randn(9, 4), torch.randn(9)
    logits = members @ titles.T + bias
    weights = torch.ones(1, 1)
    whole = next_titles_loss(members, titles, bias, torch.tensor([[2]]), weights)
    others = logits[:, [0, 1, 3, 4, 5, 6, 7, 8]]
    torch.testing.assert_close(sampled_softmax(logits[:, [2]], others, weights, 9), whole)


def test_the_sampled_softmax_nears_the_whole_one() -> None:
    torch.manual_seed(0)
    members, titles, bias = torch.randn(1, 8), torch.randn(2000, 8) / 3, torch.randn(2000) / 3
    weights = torch.tensor([[0.7, 0.3]])
    whole = next_titles_loss(members, titles, bias, torch.tensor([[3, 5]]), weights)
    logits = members @ titles.T + bias
    drawn = torch.randint(2000, (1, 1000))
    found = sampled_softmax(logits[:, [3, 5]], logits.gather(1, drawn), weights, 2000)
    assert abs(found - whole) < 0.1


def test_binary_is_torchs_cross_entropy_and_the_exponent_weighs_the_wanted_title() -> None:
    wanted, drawn, weights = torch.tensor([[0.3], [-1.0]]), torch.tensor([[2.0], [0.5]]), torch.ones(2, 1)
    logits, labels = torch.cat([wanted, drawn], 1), torch.tensor([[1.0, 0.0]]).expand(2, 2)
    plain = functional.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(binary(wanted, drawn, weights), plain)
    powered = -(torch.sigmoid(wanted) ** 0.25).log() - torch.sigmoid(-drawn).log()
    torch.testing.assert_close(binary(wanted, drawn, weights, 0.25), powered.mean() / 2)


def test_a_row_without_weight_counts_nothing() -> None:
    weights = torch.tensor([[1.0], [0.0]])
    wanted, drawn = torch.tensor([[0.3], [50.0]]), torch.tensor([[2.0], [0.5]])
    alone = binary(wanted[:1], drawn[:1], weights[:1])
    torch.testing.assert_close(binary(wanted, drawn, weights), alone)


@given(st.integers(1, 1000), st.integers(2, 10_000), st.floats(0, 1))
def test_the_exponent_lies_between_the_drawn_share_and_one(
    drawn: int, titles: int, calibration: float
) -> None:
    share = min(drawn / (titles - 1), 1)
    found = calibrated_exponent(drawn, titles, calibration)
    assert share - 1e-9 <= found <= 1 + 1e-9
    assert abs(calibrated_exponent(drawn, titles, 0) - 1) < 1e-9
    assert abs(calibrated_exponent(drawn, titles, 1) - share) < 1e-9
