"""What all pages are made of: one frame and stylesheet, figures that lead a page, and tables.

Text is escaped on its way in.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from string import Template

__all__ = ["fill", "table", "tile"]

FOLDER = Path(__file__).parent
FRAME, STYLE = FOLDER / "frame.html", FOLDER / "style.css"


def fill(template: Path, parts: dict[str, str], styles: Iterable[Path] = ()) -> str:
    """Return the page whose body is a template, with parts put into it and into every page's frame.

    The frame asks for title, heading, lead and tiles; its style is every page's, with more after.
    """
    style = "".join(path.read_text(encoding="utf-8") for path in (STYLE, *styles))
    body, frame = (Template(path.read_text(encoding="utf-8")) for path in (template, FRAME))
    return frame.substitute(parts, style=style, body=body.substitute(parts))


def tile(value: str, label: str) -> str:
    """Return one figure that leads the page."""
    return f'<div class="tile"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def table(headings: Iterable[str], rows: Iterable[Iterable[str]], numbers: int) -> str:
    """Return a table whose last `numbers` columns are set flush right; all text is escaped."""
    names = list(headings)
    first_number = len(names) - numbers

    def cell(tag: str, column: int, text: str) -> str:
        kind = ' class="number"' if column >= first_number else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    head = "".join(cell("th", column, name) for column, name in enumerate(names))
    body = "\n".join(
        "<tr>" + "".join(cell("td", column, text) for column, text in enumerate(row)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"
