import os

from sr_core.names import printable


def test_bytes_that_are_not_utf8_are_shown_as_escapes_and_all_else_as_it_is() -> None:
    assert printable(os.fsdecode(b"caf\xe9 \xc3\xa9 $x^.png")) == "caf\\xe9 é $x^.png"
    assert printable(os.fsdecode(b"caf\xe9.png")).encode() == b"caf\\xe9.png"
