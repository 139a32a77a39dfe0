"""The preset "tuned": configs that a search found, one JSON file a model in the data home."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matinee.config import Settings
from matinee.errors import ConfigError, StorageError
from matinee.models.base import ModelSpec

TUNED = "tuned"


def write(settings: Settings, model: str, config: Mapping[str, Any], origin: Mapping[str, Any]) -> Path:
    """Keep a model's config, in place of the one that was kept before.

    Args:
        config: every field.
        origin: where it comes from: study, run, data, figure.

    Raises:
        StorageError: the data home cannot be written.
    """
    path = settings.paths.tuned / f"{model}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps({"config": dict(config), "origin": dict(origin)}, indent=1))
        draft.replace(path)
    except OSError as failure:
        raise StorageError(f"tuned config {path} cannot be written: {failure}") from failure
    return path


def configs(settings: Settings, specs: Mapping[str, ModelSpec]) -> dict[str, Any]:
    """The kept configs by model.

    Raises:
        ConfigError: a file does not hold a config of its model: it was written by another release.
    """
    found = {}
    for name, spec in specs.items():
        path = settings.paths.tuned / f"{name}.json"
        if path.exists():
            try:
                found[name] = type(spec.presets["default"])(**json.loads(path.read_text())["config"])
            except (TypeError, ValueError, KeyError) as failure:
                raise ConfigError(
                    f"tuned config {path} is not one of {name}: {failure}; tune it again or delete the file"
                ) from None
    return found


def origins(settings: Settings, specs: Mapping[str, ModelSpec]) -> dict[str, str]:
    """By model, the run that found its kept config."""
    paths = {name: settings.paths.tuned / f"{name}.json" for name in specs}
    return {
        name: str(json.loads(path.read_text())["origin"]["run"])
        for name, path in paths.items()
        if path.exists()
    }
