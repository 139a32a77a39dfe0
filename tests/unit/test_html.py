"""A page is whole, and no text can break out of it."""

from __future__ import annotations

from matinee.html import document, safe


def test_a_text_stays_a_text() -> None:
    assert safe('<b a="1">') == "&lt;b a=&quot;1&quot;&gt;"
    assert safe(1.5) == "1.5"


def test_a_page_holds_its_parts_once() -> None:
    page = document("a < b", style="p{margin:0}", body="<p>words</p>")
    assert page.startswith("<!doctype html>")
    assert page.count("<title>a &lt; b</title>") == 1
    assert page.index("<style>p{margin:0}</style>") < page.index("<body>\n<p>words</p>\n</body>")
