"""Markup that cannot be broken by what is put into it."""

import pytest

from study.report.markup import Html, cell, element, joined, readable, table


def test_a_plain_string_is_text_and_markup_stays_markup() -> None:
    assert element("p", "a < b & c", Html("<b>d</b>")) == "<p>a &lt; b &amp; c<b>d</b></p>"
    assert joined(["<", Html("<br>"), None, 3]) == "&lt;<br>3"


def test_what_is_pasted_together_with_a_plain_string_is_text_again() -> None:
    assert element("p", Html("<b>") + "<script>") == "<p>&lt;b&gt;&lt;script&gt;</p>"


def test_an_attribute_cannot_be_left() -> None:
    assert element("img", alt='" onerror="alert(1)') == '<img alt="&quot; onerror=&quot;alert(1)">'


def test_attributes_are_written_as_html_writes_them() -> None:
    made = element("td", class_="a", data_sort=3, hidden=True, title=None, open=False)
    assert made == '<td class="a" data-sort="3" hidden></td>'


@pytest.mark.parametrize(
    ("value", "numeric"),
    [
        (3, True), (0.5, True), ("+0.980", True), ("1,920", True), ("33.79 ± 0.15", True), ("-4.18 to 5.13", True),
        ("4 of 6", True), ("2.31e-05", True), (True, False), ("l2", False), ("0.1; 0.3", False), ("", False),
        ("2026-11-25 15:26 UTC", False), ("50 trials", False), (None, False),
    ],
)  # fmt: skip
def test_numbers_stand_at_the_right(value: object, numeric: bool) -> None:
    assert ('class="number"' in cell(value)) == numeric


def test_values_are_said_as_people_read_them() -> None:
    assert [readable(v) for v in (0.002, 1.0, float("nan"), None, [16, 0.001], True)] == [
        "0.002", "1", "", "", "16, 0.001", "True"
    ]  # fmt: skip


def test_a_heading_stands_over_its_numbers() -> None:
    made = table(("name", "count"), [("a", 1), ("b", 22)], caption="A & B")
    assert '<th scope="col">name</th><th scope="col" class="number">count</th>' in made
    assert "A &amp; B" in made
    assert 'tabindex="0"' in made  # scrolls by keyboard, too
