"""Builds HTML in which every plain string is escaped, so that no text can break the page."""

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from sr_core.process.names import visible

_NUMBER = re.compile(r"[+-]?\d[\d,.]*(e[+-]?\d+)?( (to|±|of) [+-]?\d[\d,.]*)?")
"""A number, an interval such as "1 to 2", a mean such as "1 ± 2", or a part such as "1 of 2"."""
_BREAKS = re.compile(r"[^\n\t]+")
_EMPTY = frozenset({"img", "input", "meta", "br"})


class Html(str):
    """Markup. Any other string is escaped when it becomes part of an element."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """Return an element with its children. Children that are not `Html` are escaped.

    Args:
        attributes: `class_` is written as class and `data_x` as data-x. None and False are omitted. True is written
            as an attribute without a value.
    """
    written = "".join(_attribute(k, v) for k, v in attributes.items() if v is not None and v is not False)
    if name in _EMPTY:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{_escaped(str(value))}"'


def joined(parts: Iterable[object]) -> Html:
    """Return the parts one after the other. Parts that are not `Html` are escaped, and None is omitted."""
    return Html("".join(part if isinstance(part, Html) else _escaped(str(part)) for part in parts if part is not None))


def _escaped(text: str) -> str:
    """Return the text as HTML, with invisible characters written as escapes, except line breaks and tabs."""
    return html.escape(_BREAKS.sub(lambda line: visible(line[0]), text))


def paragraph(*children: object, class_: str | None = None) -> Html:
    """Return a paragraph. Children that are not `Html` are escaped."""
    return element("p", *children, class_=class_)


def bullets(lines: Iterable[object]) -> Html:
    """Return a bullet list; empty if there are no lines."""
    items = [element("li", line) for line in lines]
    return element("ul", *items) if items else Html("")


def missing(sentence: str, link: Html | None = None) -> Html:
    """Return a line that says what a part of the report would need, perhaps followed by a link."""
    return paragraph(sentence, None if link is None else joined([" ", link]), class_="missing")


def pairs(rows: Iterable[tuple[object, object]]) -> Html:
    """Return a list of names with their values."""
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in rows))


def table(
    columns: Sequence[object], rows: Iterable[Sequence[object]], *, caption: str, class_: str | None = None
) -> Html:
    """Return a table with numbers aligned right. It scrolls sideways if it is wider than the page."""
    body = [[cell(value) for value in row] for row in rows]
    right = [any('class="number"' in row[place] for row in body) for place in range(len(columns))]
    heads = [
        element("th", column, scope="col", class_="number" if number else None)
        for column, number in zip(columns, right, strict=True)
    ]
    content = element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *(element("tr", *cells) for cells in body)),
        class_=class_,
    )
    return joined([paragraph(caption, class_="caption"), scrolling(content, caption)])


def scrolling(content: Html, label: str) -> Html:
    """Return a container that scrolls sideways, also with the keyboard."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)


def cell(value: object, **attributes: object) -> Html:
    """Return a table cell with the given attributes. Numbers get the class `number`."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    looks_numeric = numeric or (isinstance(value, str) and _NUMBER.fullmatch(value) is not None)
    classes = " ".join(filter(None, ("number" if looks_numeric else "", str(attributes.pop("class_", "") or ""))))
    return element("td", readable(value), class_=classes or None, **attributes)


def readable(value: Any) -> object:
    """Return a value as text for people, or unchanged if it is markup."""
    if isinstance(value, Html):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(str(readable(one)) for one in value)
    return str(value)
