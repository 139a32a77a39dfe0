"""A JSON object, read field by field; one that is not as it should be is refused by its path."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import inf, isfinite, nan
from pathlib import Path
from typing import Any, get_args

from matinee.errors import InvalidInput


def read_fields(source: Path | str | Mapping[str, Any], path: str) -> Fields:
    """A JSON object by its fields.

    Args:
        source: a file, the JSON text, or what it was parsed to.
        path: what it is called where a field is refused.

    Raises:
        InvalidInput: it is no JSON object.
        FileNotFoundError: there is no such file.
    """
    if not isinstance(source, Mapping):
        text = source.read_text() if isinstance(source, Path) else source
        try:
            source = json.loads(text)
        except ValueError as problem:
            raise InvalidInput(f"{path}: not JSON: {problem}") from None
    return Fields(source, path)


class Fields:
    """A JSON object that knows where it stands. A field that is null is as one that is missing."""

    def __init__(self, fields: object, path: str) -> None:
        if not isinstance(fields, Mapping):
            raise InvalidInput(f"{path} is {_shown(fields)}; an object is accepted")
        self._fields = {name: value for name, value in fields.items() if value is not None}
        self._path = path

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def inner(self, name: str) -> Fields:
        """An object in it; an empty one where it is missing."""
        return Fields(self._fields.get(name, {}), f"{self._path}.{name}")

    def items(self, name: str) -> list[Fields]:
        """A list of objects."""
        found = self._fields.get(name)
        if not isinstance(found, list):
            raise self._refused(name, "a list is accepted")
        return [Fields(each, f"{self._path}.{name}[{place}]") for place, each in enumerate(found)]

    def text(self, name: str, default: str | None = None) -> str:
        """A text that is not empty."""
        found = self._fields.get(name, default)
        if not isinstance(found, str) or not found:
            raise self._refused(name, "a text is accepted")
        return found

    def texts(self, name: str, default: list[str]) -> list[str]:
        """A list of texts; `default` where it is missing."""
        found = self._fields.get(name, default)
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise self._refused(name, "a list of texts is accepted")
        return found

    def flag(self, name: str) -> bool:
        """True or false; false where it is missing."""
        found = self._fields.get(name, False)
        if not isinstance(found, bool):
            raise self._refused(name, "true or false is accepted")
        return found

    def number(self, name: str, default: float | None) -> Any:
        """A finite number; `default` where it is missing."""
        found = self._fields.get(name, default)
        if found is default:
            return default
        if isinstance(found, bool) or not isinstance(found, int | float) or not isfinite(found):
            raise self._refused(name, "a number is accepted")
        return float(found)

    def numbers(self, name: str) -> list[float]:
        """A list of numbers, in which null or "NaN" stands for one that is missing."""
        found = self._fields.get(name)
        if not isinstance(found, list):
            raise self._refused(name, "a list of numbers is accepted")
        read: list[float] = []
        for place, each in enumerate(found):
            value = _WORDS.get(each) if each is None or isinstance(each, str) else each
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidInput(f"{self._path}.{name}[{place}] is {_shown(each)}; a number is accepted")
            read.append(float(value))
        return read

    def choice(self, name: str, choices: Any, default: str) -> Any:
        """One of a `Literal`'s values, in any case; `default` where it is missing."""
        accepted = get_args(choices)
        found = self._fields.get(name, default)
        for each in accepted:
            if isinstance(found, str) and found.lower() == each.lower():
                return each
        raise self._refused(name, f"{', '.join(accepted)} are accepted")

    def _refused(self, name: str, accepted: str) -> InvalidInput:
        return InvalidInput(f"{self._path}.{name} is {_shown(self._fields.get(name))}; {accepted}")


_WORDS: Mapping[str | None, float] = {None: nan, "NaN": nan, "Infinity": inf, "-Infinity": -inf}


def _shown(value: object) -> str:
    return "missing" if value is None else json.dumps(value, default=str)[:80]
