"""An HTML page that needs nothing beside itself."""

from __future__ import annotations

from html import escape


def safe(value: object) -> str:
    """Anything as text that cannot break out of an element or an attribute."""
    return escape(str(value), quote=True)


def document(title: str, *, style: str, body: str) -> str:
    """A whole page.

    Args:
        title: shown as it is; `style`: CSS; `body`: HTML.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{safe(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
