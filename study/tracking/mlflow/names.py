"""Names and values as MLflow takes them; in the journal they stay as they are.

MLflow refuses other names of metrics, params and tags than letters, digits and `_ - . / : ` and blanks, other paths
than normalised ones, and names or values that are too long. One refused name refuses the whole request. A legal name is
kept; any other gets `_` for each character in question and a digest of the original: two names never become one.
"""

import hashlib
import re

from sr_core.process.names import printable

MAX_KEY_CHARS = 250
"""Characters of the name of a metric, param or tag."""
MAX_PARAM_CHARS, MAX_TAG_CHARS, MAX_EXPERIMENT_TAG_CHARS, MAX_DESCRIPTION_CHARS = 6000, 8000, 20_000, 5000
"""Characters of a value. MLflow cuts the first two itself, unless it is told to refuse them."""
MAX_RUN_NAME_CHARS, MAX_DATASET_NAME_CHARS = 250, 500
_MAX_FILE_NAME_BYTES = 200
"""Bytes of a file's name; file systems take 255, of which a store may want some."""
_ILLEGAL_KEY = re.compile(r"[^\w.\- :]")
_ILLEGAL_FILE = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|#%]")


def legal_key(name: str) -> str:
    """Returns the name of a metric, param or tag; equal for a legal one, and different for different names."""
    parts = [_legal_part(part, _ILLEGAL_KEY) for part in name.split("/")]
    return _shortened("/".join(parts), MAX_KEY_CHARS, name)


def legal_path(name: str) -> str:
    """Returns the path of a file among a run's artifacts, relative, with `/`; equal for a legal one."""
    return "/".join(_legal_file(part) for part in name.split("/"))


def legal_value(text: str, most: int) -> str:
    """Returns a value cut to `most` characters, of those that every database can hold."""
    return printable(text).replace("\0", "\\x00")[:most]


def _legal_part(part: str, illegal: re.Pattern[str]) -> str:
    if part in ("", ".") or part.startswith("..") or illegal.search(part):
        return f"{illegal.sub('_', part).lstrip('.') or '_'}-{_digest(part)}"
    return part


def _legal_file(part: str) -> str:
    stem, dot, suffix = part.rpartition(".")
    ending = f".{suffix}" if dot and stem and re.fullmatch(r"\w{1,10}", suffix, re.ASCII) else ""
    body = part.removesuffix(ending)
    whole = printable(part) == part and part.strip() == part and not part.endswith(".")
    if whole and len(part.encode()) <= _MAX_FILE_NAME_BYTES and part not in ("", ".", "..") and not _ILLEGAL_FILE.search(part):
        return part
    cut = _ILLEGAL_FILE.sub("_", printable(body).replace("\\", "_")).encode()[: _MAX_FILE_NAME_BYTES - 40].decode(errors="ignore")
    return f"{cut.strip() or '_'}-{_digest(part)}{ending}"


def _shortened(text: str, most: int, original: str) -> str:
    if len(text) <= most:
        return text
    digest = _digest(original)
    return f"{text[: most - len(digest) - 1].rstrip('/.')}-{digest}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
