from sr_core.names import printable


def test_bytes_that_are_not_utf8_are_shown_as_escapes_and_all_else_as_it_is() -> None:
    latin1 = b"caf\xe9 \xc3\xa9 $x^.png".decode("utf-8", "surrogateescape")
    assert printable(latin1) == "caf\\xe9 é $x^.png"
    assert printable("\ud800") == "\\ud800"
