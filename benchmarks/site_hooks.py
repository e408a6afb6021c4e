"""MkDocs hooks that adapt the pages of docs/, written for GitHub, to the site.

A link to a file of the checkout, which the site does not hold, becomes the file's path. What belongs to a step of a
numbered list is indented by three spaces on GitHub and by four in Python-Markdown.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"(?P<before>\(?)\[(?P<text>[^\]]+)\]\((?P<path>\.\./[^)#\s]+)\)")
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
NESTED = re.compile(r"^ {3}(?=\s*\S)", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return the text of a page as the site needs it; code is not changed."""
    parts = FENCED.split(markdown)
    parts[::2] = [OUTSIDE.sub(_named, NESTED.sub(" " * 4, part)) for part in parts[::2]]
    return "".join(parts)


def _named(link: re.Match[str]) -> str:
    """[log](../PATH) as log (`PATH`), or within brackets as log: `PATH`; a text that is the path stands alone."""
    path = PurePosixPath(link["path"].removeprefix("../"))
    if not (ROOT / path).exists():
        return link[0]  # MkDocs reports it
    before, text = link["before"], link["text"]
    if text.strip("`") == str(path):
        return f"{before}`{path}`"
    return f"({text}: `{path}`" if before else f"{text} (`{path}`)"
