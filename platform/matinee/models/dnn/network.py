"""The network: title tower, member tower."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional


class Attention(nn.Module):
    """Causal self-attention, then a feed-forward part; both residual. Shapes: [runs, length, width].

    Args:
        recency: watches after which a bias by distance has halved at the start; None: there is no bias.
    """

    def __init__(self, *, width: int, heads: int, length: int, recency: float | None) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.norm_forward = nn.LayerNorm(width)
        self.forward_in = nn.Linear(width, 2 * width)
        self.forward_out = nn.Linear(2 * width, width)
        self.bias = None
        if recency is not None:
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
        seen = (distance >= 0)[None, None] & known[:, None, None, :]
        # A padded row attends to itself: a softmax over nothing is not a number.
        seen = seen | (distance == 0)[None, None]
        if self.bias is None:
            mask = seen
        else:
            bias = self.bias.index_select(1, distance.clamp(min=0).flatten()).view(-1, length, length)
            mask = bias[None].masked_fill(~seen, float("-inf")).to(query.dtype)
        read = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        read = self.join(read.transpose(1, 2).reshape(runs, length, width))
        hidden = inputs + read
        inner = functional.gelu(self.forward_in(self.norm_forward(hidden)))
        out: torch.Tensor = hidden + self.forward_out(inner)
        return out


class TitleTower(nn.Module):
    """Title vectors from identity, catalogue attributes and title features.

    Args:
        seen: bool [titles]; the identity of the others is zero: content alone speaks for them.
        values: how many attribute values there are; 0: attributes don't count.
        attributes: int64 [pairs], values of the titles one after the other.
        bounds: int64 [titles + 1], where each title's begin.
        features: float32 [titles, f], scaled.
    """

    seen: torch.Tensor
    attributes: torch.Tensor
    bounds: torch.Tensor
    features: torch.Tensor

    def __init__(
        self,
        *,
        width: int,
        seen: torch.Tensor,
        values: int,
        attributes: torch.Tensor,
        bounds: torch.Tensor,
        features: torch.Tensor,
    ) -> None:
        super().__init__()
        self.identity = nn.Parameter(torch.randn(len(seen), width) * 0.05 * seen[:, None])
        self.content = nn.EmbeddingBag(values, width, mode="mean") if values else None
        if self.content is not None:
            nn.init.normal_(self.content.weight, std=0.05)
        self.statistics = nn.Linear(features.shape[1], width, bias=False) if features.shape[1] else None
        self.register_buffer("seen", seen, persistent=False)
        self.register_buffer("attributes", attributes, persistent=False)
        self.register_buffer("bounds", bounds, persistent=False)
        self.register_buffer("features", features, persistent=False)

    def forward(self, at: torch.Tensor | None = None, kept: torch.Tensor | None = None) -> torch.Tensor:
        """Vectors [titles, width] of all titles, or of those `at` positions.

        Args:
            kept: bool [titles], whose identity counts; None: of all that are seen.
        """
        counts = self.seen if kept is None else self.seen & kept
        identity: torch.Tensor = self.identity
        features = self.features
        if at is not None:
            identity, counts, features = identity.index_select(0, at), counts[at], features[at]
        vectors = identity * counts[:, None]
        if self.content is not None:
            vectors = vectors + self.content(*self._attributes(at))
        if self.statistics is not None:
            vectors = vectors + self.statistics(features)
        return vectors

    def _attributes(self, at: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Attribute values of titles one after the other, and where each title's begin."""
        if at is None:
            return self.attributes, self.bounds[:-1]
        begin, counts = self.bounds[at], self.bounds[at + 1] - self.bounds[at]
        offsets = counts.cumsum(0) - counts
        places = torch.arange(int(counts.sum()), device=at.device)
        return self.attributes[places + (begin - offsets).repeat_interleave(counts)], offsets


class MemberTower(nn.Module):
    """Member vectors [..., width] from runs of title vectors, features and the sitting flag.

    Args:
        recency: as in `Attention`; None: the order is told by an embedding of each place.
        features: of a member; None: the states are the member vectors.
    """

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        layers: int,
        length: int,
        recency: float | None,
        dropout: float,
        features: int | None,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.told = 1 + (features or 0)
        self.first = nn.Parameter(torch.zeros(width))
        self.places = nn.Parameter(torch.randn(length + 1, width) * 0.05) if recency is None else None
        self.norm_in = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            Attention(width=width, heads=heads, length=length + 1, recency=recency) for _ in range(layers)
        )
        self.norm_out = nn.LayerNorm(width)
        self.context = None if features is None else nn.Linear(features + 1, width)
        self.out = None if features is None else nn.Linear(width, width)

    def encode(self, titles: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """States after each title, and before the first: [runs, length + 1, width]."""
        start = self.first.expand(len(titles), 1, -1)
        hidden = torch.cat([start, self.norm_in(titles)], dim=1)
        if self.places is not None:
            hidden = hidden + self.places[: hidden.shape[1]]
        hidden = functional.dropout(hidden, self.dropout, self.training)
        held = torch.cat([known.new_ones(len(known), 1), known], dim=1)
        for layer in self.layers:
            hidden = layer(hidden, held)
        states: torch.Tensor = self.norm_out(hidden)
        return states

    def forward(self, states: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """States [rows, width] and context [rows, features + 1] to member vectors."""
        if self.context is None or self.out is None:
            return states
        vectors: torch.Tensor = self.out(states + functional.gelu(self.context(context)))
        return vectors


class Head(nn.Module):
    """Log-odds of what comes of showing a title to a member, beginning at the same for all.

    Args:
        share: how often it comes.
    """

    def __init__(self, width: int, share: float = 0.5) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))
        self.mix = nn.Linear(width, width)
        self.title = nn.Linear(width, 1)
        nn.init.zeros_(self.title.weight)
        nn.init.constant_(self.title.bias, math.log(share / (1 - share)))

    def forward(self, members: torch.Tensor, titles: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Of pairs, [n]: members [n, width], titles [n, width] and their biases [n]."""
        score = (members * titles).sum(1) + bias
        found: torch.Tensor = (self.mix(members) * titles).sum(1) + self.title(titles).squeeze(1)
        return found + self.gain * score

    def every(self, members: torch.Tensor, titles: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Of members [m, width] and all titles [t, width] with their biases [t]: [m, t]."""
        of_titles = self.title(titles).squeeze(1) + self.gain * bias
        return torch.addmm(of_titles, self.mix(members) + self.gain * members, titles.T)

    def product(self, members: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Vectors [m, width] to multiply titles with, the weight of their biases, and what all have."""
        vectors = self.mix(members) + self.gain * members + self.title.weight
        return vectors, self.gain, self.title.bias


class Towers(nn.Module):
    """Everything that learns: both towers, a bias per title, and heads.

    Args:
        bias: float32 [titles], where the bias starts.
        outcomes: what there is a head for, and its share.
    """

    def __init__(
        self, member: MemberTower, title: TitleTower, bias: torch.Tensor, outcomes: Mapping[str, float]
    ) -> None:
        super().__init__()
        self.member, self.title = member, title
        self.bias = nn.Parameter(bias)
        self.heads = nn.ModuleDict(
            {name: Head(title.identity.shape[1], share) for name, share in outcomes.items()}
        )

    def biases(self) -> torch.Tensor:
        """Per title; those of titles nobody watched stay where they start: nothing teaches them."""
        return torch.where(self.title.seen, self.bias, self.bias.detach())
