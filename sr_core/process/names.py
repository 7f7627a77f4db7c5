"""File names as text that every encoding can represent."""

import re
import unicodedata


def printable(name: str) -> str:
    """The name with each byte that is not valid UTF-8 written as \\xNN, so that it can be printed, drawn and stored.

    Python represents such bytes by lone surrogates, which cannot be written to a UTF-8 file, terminal or figure. Use
    the original name to open the file, and this text to show it.
    """
    escaped = re.sub("[\udc80-\udcff]", lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", name)
    return escaped.encode("utf-8", "backslashreplace").decode()


def folded(name: str) -> str:
    """One common text for all names that some file system treats as equal: in any case, composed or decomposed."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


_INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufffe\uffff]")
"""Control characters, line ends, marks of text direction, and characters that XML forbids."""


def visible(name: str, longest: int = 0) -> str:
    """The result of `printable` on one line, with control characters as escapes, for example \\n.

    Args:
        longest: maximum number of characters; the middle of a longer name is replaced by "…". 0: no limit.
    """
    text = _INVISIBLE.sub(lambda one: one[0].encode("unicode_escape").decode(), printable(name))
    if not longest or len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[head + 1 - longest :]}"


def utf8(text: str) -> bytes:
    """The text encoded as UTF-8, after `printable`."""
    return printable(text).encode()
