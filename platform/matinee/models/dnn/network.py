"""The network: title tower, member tower."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """Causal self-attention whose bias depends on how many watches lie between two titles, then a
    feed-forward part; both residual. Shapes: [runs, length, width] in and out."""

    def __init__(self, *, width: int, heads: int, length: int, recency: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.norm_forward = nn.LayerNorm(width)
        self.forward_in = nn.Linear(width, 2 * width)
        self.forward_out = nn.Linear(2 * width, width)
        slopes = math.log(2) / recency * torch.tensor([4.0 ** (head % 2) for head in range(heads)])
        self.bias = nn.Parameter(-slopes[:, None] * torch.arange(length)[None, :].float())

    def forward(self, inputs: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """`known`: bool [runs, length], False at padding."""
        runs, length, width = inputs.shape
        query, key, value = (
            part.view(runs, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.mix(self.norm(inputs)).chunk(3, dim=-1)
        )
        steps = torch.arange(length, device=inputs.device)
        distance = steps[:, None] - steps[None, :]
        bias = self.bias.index_select(1, distance.clamp(min=0).flatten()).view(-1, length, length)
        seen = (distance >= 0)[None, None] & known[:, None, None, :]
        # A padded row attends to itself: a softmax over nothing is not a number.
        seen = seen | (distance == 0)[None, None]
        mask = bias[None].masked_fill(~seen, float("-inf"))
        read = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        read = self.join(read.transpose(1, 2).reshape(runs, length, width))
        hidden = inputs + read
        inner = functional.gelu(self.forward_in(self.norm_forward(hidden)))
        out: torch.Tensor = hidden + self.forward_out(inner)
        return out


class TitleTower(nn.Module):
    """Title vectors [titles, width] from identity, catalogue attributes and title features."""

    attributes: torch.Tensor
    bounds: torch.Tensor
    features: torch.Tensor

    def __init__(
        self,
        *,
        titles: int,
        width: int,
        values: int,
        attributes: torch.Tensor,
        bounds: torch.Tensor,
        features: torch.Tensor,
    ) -> None:
        super().__init__()
        self.identity = nn.Parameter(torch.randn(titles, width) * 0.05)
        self.content = nn.EmbeddingBag(max(values, 1), width, mode="mean")
        nn.init.normal_(self.content.weight, std=0.05)
        self.statistics = nn.Linear(features.shape[1], width, bias=False) if features.shape[1] else None
        self.register_buffer("attributes", attributes, persistent=False)
        self.register_buffer("bounds", bounds, persistent=False)
        self.register_buffer("features", features, persistent=False)

    def forward(self) -> torch.Tensor:
        """All titles at once."""
        vectors: torch.Tensor = self.identity + self.content(self.attributes, self.bounds)
        if self.statistics is not None:
            vectors = vectors + self.statistics(self.features)
        return vectors


class MemberTower(nn.Module):
    """Member vectors [..., width] from runs of title vectors, features and the sitting flag."""

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        layers: int,
        length: int,
        recency: float,
        dropout: float,
        features: int,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.first = nn.Parameter(torch.zeros(width))
        self.norm_in = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            Attention(width=width, heads=heads, length=length + 1, recency=recency) for _ in range(layers)
        )
        self.norm_out = nn.LayerNorm(width)
        self.context = nn.Linear(features + 1, width)
        self.out = nn.Linear(width, width)

    def encode(self, titles: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """States after each title, and before the first: [runs, length + 1, width]."""
        start = self.first.expand(len(titles), 1, -1)
        hidden = torch.cat([start, self.norm_in(titles)], dim=1)
        hidden = functional.dropout(hidden, self.dropout, self.training)
        held = torch.cat([known.new_ones(len(known), 1), known], dim=1)
        for layer in self.layers:
            hidden = layer(hidden, held)
        states: torch.Tensor = self.norm_out(hidden)
        return states

    def forward(self, states: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """States [rows, width] and context [rows, features + 1] to member vectors."""
        vectors: torch.Tensor = self.out(states + functional.gelu(self.context(context)))
        return vectors


class Towers(nn.Module):
    """Everything that learns: both towers, and a bias per title.

    Args:
        bias: float32 [titles], where the bias starts.
    """

    def __init__(self, member: MemberTower, title: TitleTower, bias: torch.Tensor) -> None:
        super().__init__()
        self.member, self.title = member, title
        self.bias = nn.Parameter(bias)
