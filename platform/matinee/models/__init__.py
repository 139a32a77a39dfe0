"""Models, one folder each. `discover` finds them; nothing else lists them."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from matinee.models.base import ModelSpec


@cache
def discover() -> dict[str, ModelSpec]:
    """Every model folder's SPEC by name, in name order."""
    specs: dict[str, ModelSpec] = {}
    for entry in sorted(pkgutil.iter_modules(__path__), key=lambda entry: entry.name):
        if entry.ispkg:
            module = importlib.import_module(f"{__name__}.{entry.name}")
            specs[entry.name] = module.SPEC
    return specs
