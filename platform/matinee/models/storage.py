"""How a model lies in its folder: `config.json` beside `arrays.npz`. No pickles."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matinee.errors import StorageError

Array = npt.NDArray[Any]


def write_model(
    folder: Path, *, config: Any, arrays: Mapping[str, Array], facts: Mapping[str, Any] | None = None
) -> None:
    """Write a config dataclass, named arrays and JSON-ready facts; the JSON file is written last."""
    np.savez(folder / "arrays.npz", allow_pickle=False, **dict(arrays))
    text = json.dumps({"config": dataclasses.asdict(config), "facts": dict(facts or {})}, indent=2)
    (folder / "config.json").write_text(text)


def read_model(folder: Path) -> tuple[dict[str, Any], dict[str, Array], dict[str, Any]]:
    """Config values, arrays and facts that `write_model` wrote.

    Raises:
        StorageError: the folder holds no whole model.
    """
    try:
        document = json.loads((folder / "config.json").read_text())
        with np.load(folder / "arrays.npz", allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as failure:
        raise StorageError(f"model folder {folder} is not a whole saved model: {failure}") from None
    return document["config"], arrays, document["facts"]
