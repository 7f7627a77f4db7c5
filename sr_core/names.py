"""File names as text that every encoding can hold."""

import re


def printable(name: str) -> str:
    """The name with each byte that is not UTF-8 written as \\xNN, so that it can be printed, drawn and stored.

    Python keeps such bytes of a file name as lone surrogates, which no UTF-8 file, terminal or figure takes. The
    name itself still opens the file; this is the text to show for it.
    """
    escaped = re.sub("[\udc80-\udcff]", lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", name)
    return escaped.encode("utf-8", "backslashreplace").decode()
