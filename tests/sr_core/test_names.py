from sr_core.process.names import folded, printable


def test_bytes_that_are_not_utf8_are_shown_as_escapes_and_all_else_as_it_is() -> None:
    latin1 = b"caf\xe9 \xc3\xa9 $x^.png".decode("utf-8", "surrogateescape")
    assert printable(latin1) == "caf\\xe9 é $x^.png"
    assert printable("\ud800") == "\\ud800"


def test_names_that_some_disk_takes_for_one_fold_to_the_same_text() -> None:
    assert folded("A.PNG") == folded("a.png")
    assert folded("\u00c9.png") == folded("e\u0301.png")
    assert folded("a.png") != folded("b.png")
    assert folded("caf\udce9") == "caf\udce9"
