"""The title tower of a catalogue, and what of it a later fit can take over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from matinee.models.content import Scaling, relations
from matinee.models.dnn.network import TitleTower
from matinee.schema import Catalogue, Features


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a fitted title tower knows, apart from how the catalogue describes titles.

    Args:
        attributes: names of the attribute values: "genre:Action".
        scaling: of the title features.
        weights: the tower's parameters by name, on the CPU.
    """

    attributes: Sequence[str]
    scaling: Scaling
    weights: Mapping[str, torch.Tensor]


def title_tower(
    catalogue: Catalogue, features: Features | None, seen: npt.NDArray[np.bool_], *, width: int, content: bool
) -> tuple[TitleTower, Sequence[str], Scaling]:
    """A new tower, the names of its attribute values, and its features' scaling.

    Args:
        features: rows aligned with the catalogue.
        seen: by title, whether there are interactions to learn its identity from.
        content: False: identity alone.
    """
    found = relations(catalogue) if content else []
    scaling = Scaling.measure(features if content else None)
    offsets = np.cumsum([0, *(len(relation.values) for relation in found)])
    none = np.zeros(0, np.int64)
    title = np.concatenate([*(relation.title for relation in found), none])
    value = np.concatenate([*(r.value + at for r, at in zip(found, offsets[:-1], strict=True)), none])
    order = np.argsort(title, kind="stable")
    tower = TitleTower(
        width=width,
        seen=torch.from_numpy(seen),
        values=int(offsets[-1]),
        attributes=torch.from_numpy(value[order]),
        bounds=torch.from_numpy(np.searchsorted(title[order], np.arange(len(catalogue) + 1))),
        features=torch.from_numpy(scaling.apply(features, len(catalogue))),
    )
    return tower, [f"{relation.name}:{value}" for relation in found for value in relation.values], scaling


@torch.no_grad()
def take_over(
    tower: TitleTower,
    attributes: Sequence[str],
    scaling: Scaling,
    known: Known,
    titles: npt.NDArray[np.int64],
) -> None:
    """Set what an earlier tower knows; new titles begin from their content, other values as they are.

    Args:
        attributes: of the new tower, likewise `scaling`.
        titles: as in `Start`.
    """
    old = torch.from_numpy(titles)
    tower.identity.zero_()
    tower.identity[old >= 0] = known.weights["identity"][old[old >= 0]]
    place = {name: at for at, name in enumerate(known.attributes)}
    shared = [at for at, name in enumerate(attributes) if name in place]
    if tower.content is not None and shared:
        tower.content.weight[shared] = known.weights["content.weight"][
            [place[attributes[at]] for at in shared]
        ]
    column = {name: at for at, name in enumerate(known.scaling.names)}
    alike = [at for at, name in enumerate(scaling.names) if name in column]
    if tower.statistics is not None and alike:
        tower.statistics.weight[:, alike] = known.weights["statistics.weight"][
            :, [column[scaling.names[at]] for at in alike]
        ]
