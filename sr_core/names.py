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
