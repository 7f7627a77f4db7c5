"""The page itself: sections in order, their contents, one style and one script, nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from study.report.markup import Html, element, joined


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report."""

    name: str
    """What links point at."""
    title: str
    body: Html
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The same as files, by their path in the report's folder."""
    faults: Sequence[str] = ()
    """Figures that could not be drawn and why, a sentence each."""


def page(title: str, head: Html, sections: Sequence[Section], foot: Html) -> str:
    """The whole document.

    A content security policy keeps it from reaching for anything outside of itself, and from running any script but
    its own, whatever a study's texts say.
    """
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    )
    links = [element("li", element("a", section.title, href=f"#{section.name}")) for section in sections]
    parts = [element("section", element("h2", section.title), section.body, id=section.name) for section in sections]
    return (
        "<!DOCTYPE html>\n"
        + element(
            "html",
            element(
                "head",
                element("meta", charset="utf-8"),
                element("meta", http_equiv="Content-Security-Policy", content=policy),
                element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                element("meta", name="color-scheme", content="light dark"),
                element("title", title),
                element("style", Html(style)),
            ),
            element(
                "body",
                element("a", "Skip to the content", href="#content", class_="skip"),
                element("header", head),
                element("nav", element("ol", *links), aria_label="Contents"),
                element("main", *parts, id="content"),
                element("footer", foot),
                element("script", Html(script)),
            ),
            lang="en",
        )
        + "\n"
    )


def _asset(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def figures(*parts: object) -> Html:
    """Figures beside each other where there is room."""
    return element("div", joined(parts), class_="figures")
