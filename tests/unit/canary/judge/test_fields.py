"""Fields are what they are declared to be, or named with their path."""

from __future__ import annotations

from pathlib import Path

import pytest

from matinee.canary.judge.fields import Fields, read_fields
from matinee.errors import InvalidInput


def test_an_object_is_read_from_a_file_a_text_or_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"a": 1}')
    assert [read_fields(each, "x").number("a", None) for each in (path, '{"a": 1}', {"a": 1})] == [1.0] * 3


@pytest.mark.parametrize(("text", "told"), [("{", "x: not JSON"), ("[1]", r"x is \[1\]; an object")])
def test_what_is_no_object_is_refused(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        read_fields(text, "x")


def test_null_is_as_missing() -> None:
    fields = Fields({"a": None, "b": 2}, "x")
    assert list(fields) == ["b"]
    assert "a" not in fields
    assert (fields.number("a", 7.0), fields.text("a", "t"), fields.flag("a")) == (7.0, "t", False)
    assert list(fields.inner("a")) == []


def test_a_wrong_field_is_named_where_it_stands() -> None:
    inner = Fields({"list": [{"value": True}]}, "x").items("list")[0]
    with pytest.raises(InvalidInput, match=r"^x\.list\[0\]\.value is true; a number is accepted$"):
        inner.number("value", None)
