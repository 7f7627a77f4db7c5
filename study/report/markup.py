"""HTML that cannot be broken by what is put into it: every plain string is text and is escaped."""

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from sr_core.process.names import visible

_NUMBER = re.compile(r"[+-]?\d[\d,.]*(e[+-]?\d+)?( (to|±|of) [+-]?\d[\d,.]*)?")
"""A number, an interval, a mean with its reach, or a part of a whole."""
_BREAKS = re.compile(r"[^\n\t]+")
_EMPTY = frozenset({"img", "input", "meta", "br"})


class Html(str):
    """Markup. Any other string becomes text where it is put into an element."""

    __slots__ = ()


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """An element around its children; those that are no `Html` are escaped.

    Args:
        attributes: `class_` is written class, `data_x` data-x; None and False are left out, True has no value.
    """
    written = "".join(_attribute(k, v) for k, v in attributes.items() if v is not None and v is not False)
    if name in _EMPTY:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{_escaped(str(value))}"'


def joined(parts: Iterable[object]) -> Html:
    """Parts one after the other; those that are no `Html` are escaped, None is left out."""
    return Html("".join(part if isinstance(part, Html) else _escaped(str(part)) for part in parts if part is not None))


def _escaped(text: str) -> str:
    """The text as HTML: what cannot be seen or encoded is written as an escape, line breaks and tabs apart."""
    return html.escape(_BREAKS.sub(lambda line: visible(line[0]), text))


def paragraph(*children: object, class_: str | None = None) -> Html:
    return element("p", *children, class_=class_)


def bullets(lines: Iterable[object]) -> Html:
    """A list; nothing where there is no line."""
    items = [element("li", line) for line in lines]
    return element("ul", *items) if items else Html("")


def missing(sentence: str, link: Html | None = None) -> Html:
    """What a part of the report would need, in one line; a link may follow."""
    return paragraph(sentence, None if link is None else joined([" ", link]), class_="missing")


def pairs(rows: Iterable[tuple[object, object]]) -> Html:
    """Names and their values."""
    return element("dl", *(element("div", element("dt", name), element("dd", value)) for name, value in rows))


def table(
    columns: Sequence[object], rows: Iterable[Sequence[object]], *, caption: str, class_: str | None = None
) -> Html:
    """A table that scrolls by itself where it is wider than the page; numbers stand at the right."""
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
    """A container that scrolls sideways, also by keyboard."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)


def cell(value: object, **attributes: object) -> Html:
    """A table's cell. Attributes are added to it."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    looks_numeric = numeric or (isinstance(value, str) and _NUMBER.fullmatch(value) is not None)
    classes = " ".join(filter(None, ("number" if looks_numeric else "", str(attributes.pop("class_", "") or ""))))
    return element("td", readable(value), class_=classes or None, **attributes)


def readable(value: Any) -> object:
    """A value as people read it; markup stays what it is."""
    if isinstance(value, Html):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(str(readable(one)) for one in value)
    return str(value)
