"""Assembles the page from its sections, one style sheet and one script, without anything from the network."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from study.report.markup import Html, element


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report."""

    name: str
    """The target of links within the page."""
    title: str
    body: Html
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Figures and numbers of the section as files, by their path in the report's folder."""
    faults: Sequence[str] = ()
    """A sentence about each figure that could not be drawn."""


def page(title: str, head: Html, sections: Sequence[Section], foot: Html) -> str:
    """Return the whole HTML document.

    Its content security policy blocks everything from the network and every script but its own, whatever the texts of
    a study contain.
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
