"""A served model in one folder: the model, the catalogue it counts titles by, and what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from matinee.errors import NotFound
from matinee.models import discover
from matinee.models.base import Model
from matinee.schema import Catalogue

MANIFEST = "bundle.json"
"""Written last: a folder without it is not a bundle."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A loaded bundle.

    Args:
        name: the model folder's name, as in `discover()`.
        model: ready to score.
        catalogue: position i is title i of the model's scores.
        positions: title id to position.
        extra: what the writer added.
    """

    name: str
    model: Model
    catalogue: Catalogue
    positions: Mapping[str, int]
    extra: Mapping[str, str] = field(default_factory=dict)


def save_bundle(
    folder: Path, model: Model, *, name: str, catalogue: Catalogue, extra: Mapping[str, str]
) -> None:
    """Write a bundle into an existing, empty folder."""
    (folder / "model").mkdir()
    model.save(folder / "model")
    catalogue.write(folder / "catalogue.parquet")
    draft = folder / f"{MANIFEST}.draft"
    draft.write_text(json.dumps({"name": name, "extra": dict(extra)}, indent=2))
    draft.replace(folder / MANIFEST)


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle.

    Raises:
        NotFound: the folder is no whole bundle, or its model is none of ours.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except OSError:
        raise NotFound(f"no model bundle in {folder}: {MANIFEST} is missing") from None
    name = manifest["name"]
    specs = discover()
    if name not in specs:
        raise NotFound(f"bundle {folder} holds model {name!r}; known are {sorted(specs)}")
    catalogue = Catalogue.read(folder / "catalogue.parquet")
    return Bundle(
        name=name,
        model=specs[name].model.load(folder / "model"),
        catalogue=catalogue,
        positions={title: place for place, title in enumerate(catalogue.title_ids)},
        extra=manifest["extra"],
    )
