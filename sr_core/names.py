"""File names as text that every encoding can hold."""

import os


def printable(name: str) -> str:
    """The name with each byte that is not UTF-8 written as \\xNN, so that it can be printed, drawn and stored.

    Python keeps such bytes of a file name as lone surrogates, which no UTF-8 file, terminal or figure takes. The
    name itself still opens the file; this is the text to show for it.
    """
    return os.fsencode(name).decode("utf-8", "backslashreplace")
