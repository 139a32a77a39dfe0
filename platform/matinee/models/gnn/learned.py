"""The parameters of a fit with the names of what they belong to: what a later fit goes on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from matinee.models.gnn.network import Network

RELATION, FEATURE = "relation", "feature"


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Parameters by name.

    Args:
        names: what rows or columns stand for: values by attribute, "relation" and "feature".
        arrays: float32, the network's state.
    """

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, network: Network, names: Mapping[str, Sequence[str]]) -> Learned:
        """The parameters of `network` as they are.

        Args:
            names: values by attribute, and "feature": the names of the title features.
        """
        arrays = {name: value.detach().cpu().numpy().copy() for name, value in network.state_dict().items()}
        return cls(names={**names, RELATION: _triples(network)}, arrays=arrays)

    def put(
        self, network: Network, names: Mapping[str, Sequence[str]], titles: npt.NDArray[np.int64]
    ) -> None:
        """Write into `network` what is known of its titles, values, relations and features.

        Args:
            names: as in `of`, of the new network.
            titles: int64, per title of the new network its position in the old one, -1 where it is new.
        """
        names = {**names, RELATION: _triples(network)}
        for name, value in network.state_dict().items():
            if name not in self.arrays:
                continue
            held = torch.from_numpy(self.arrays[name])
            kind = {"propagator.strength": RELATION, "propagator.statistics.weight": FEATURE}.get(name)
            if kind is not None:
                places = self._places(kind, names[kind])
                value[:, places >= 0] = held[:, places[places >= 0]]
                continue
            kind = name.removeprefix("propagator.start.")
            if name in ("bias", "propagator.start.title"):
                places = titles
            elif kind in names:
                places = self._places(kind, names[kind])
            else:
                places = np.arange(len(held))
            value[places >= 0] = held[places[places >= 0]]

    def _places(self, kind: str, wanted: Sequence[str]) -> npt.NDArray[np.int64]:
        known = {name: place for place, name in enumerate(self.names.get(kind, ()))}
        return np.array([known.get(name, -1) for name in wanted], dtype=np.int64)


def _triples(network: Network) -> list[str]:
    return [" ".join(triple) for triple in network.propagator.place]
