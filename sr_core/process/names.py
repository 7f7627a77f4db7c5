"""File names as text that every encoding can hold."""

import re
import unicodedata


def printable(name: str) -> str:
    """The name with each byte that is not UTF-8 written as \\xNN, so that it can be printed, drawn and stored.

    Python keeps such bytes of a file name as lone surrogates, which no UTF-8 file, terminal or figure takes. The
    name itself still opens the file; this is the text to show for it.
    """
    escaped = re.sub("[\udc80-\udcff]", lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", name)
    return escaped.encode("utf-8", "backslashreplace").decode()


def folded(name: str) -> str:
    """The same text for all names that some file system takes for one: upper and lower case, composed or not."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufffe\uffff]")
"""Controls, line ends, marks that turn the direction of a line, and what no XML file may hold."""


def visible(name: str, longest: int = 0) -> str:
    """The name as `printable` gives it, on one line: each control character is written as an escape, \\n for example.

    Args:
        longest: characters; of a longer name the middle gives way to "…". 0: no limit.
    """
    text = _INVISIBLE.sub(lambda one: one[0].encode("unicode_escape").decode(), printable(name))
    if not longest or len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[head + 1 - longest :]}"


def utf8(text: str) -> bytes:
    """The text as a file holds it, names in it as `printable` gives them."""
    return printable(text).encode()
