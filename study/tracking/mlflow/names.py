"""Names and values in the form that MLflow accepts. The journal keeps the originals.

Names of metrics, params and tags may contain letters, digits, blanks and `_ - . / :`. Paths must be normalised. Names
and values must not be too long. MLflow rejects a whole request for one illegal name. A legal name stays as it is. In
any other, each illegal character becomes `_`, and a digest of the original is appended, so two names never become one.
"""

import hashlib
import re

from sr_core.process.names import printable

MAX_KEY_CHARS = 250
"""Length of the name of a metric, param or tag."""
MAX_PARAM_CHARS = 6000
"""Length of a param's value. MLflow cuts longer ones itself unless it is configured to reject them."""
MAX_TAG_CHARS = 8000
"""Length of a tag's value, with the same rule."""
MAX_EXPERIMENT_TAG_CHARS = 20_000
MAX_DESCRIPTION_CHARS = 5000
MAX_RUN_NAME_CHARS = 250
MAX_DATASET_NAME_CHARS = 500
_MAX_FILE_NAME_BYTES = 200
"""File systems accept 255, and a store may need some of them."""
_ILLEGAL_KEY = re.compile(r"[^\w.\- :]")
_ILLEGAL_FILE = re.compile(r"[\x00-\x1f\x7f/\\:*?\"<>|#%]")


def legal_key(name: str) -> str:
    """Returns a legal name for a metric, param or tag. A legal name stays, and different names stay different."""
    parts = [_legal_part(part, _ILLEGAL_KEY) for part in name.split("/")]
    return _shortened("/".join(parts), MAX_KEY_CHARS, name)


def legal_path(name: str) -> str:
    """Returns a legal path for a file of a run's artifacts, relative and with `/`. A legal path stays."""
    return "/".join(_legal_file(part) for part in name.split("/"))


def legal_value(text: str, most: int) -> str:
    """Returns a value in characters that every database accepts, cut to `most` of them."""
    return printable(text).replace("\0", "\\x00")[:most]


def _legal_part(part: str, illegal: re.Pattern[str]) -> str:
    if part in ("", ".") or part.startswith("..") or illegal.search(part):
        return f"{illegal.sub('_', part).lstrip('.') or '_'}-{_digest(part)}"
    return part


def _legal_file(part: str) -> str:
    stem, dot, suffix = part.rpartition(".")
    ending = f".{suffix}" if dot and stem and re.fullmatch(r"\w{1,10}", suffix, re.ASCII) else ""
    if _is_legal_file(part):
        return part
    body = printable(part.removesuffix(ending)).replace("\\", "_")
    encoded = _ILLEGAL_FILE.sub("_", body).encode()[: _MAX_FILE_NAME_BYTES - 40]
    stem = encoded.decode(errors="ignore").strip() or "_"
    return f"{stem}-{_digest(part)}{ending}"


def _is_legal_file(part: str) -> bool:
    """Returns True if every store and file system accepts this name of a file or folder."""
    if printable(part) != part or part.strip() != part or part.endswith("."):
        return False
    return part != "" and len(part.encode()) <= _MAX_FILE_NAME_BYTES and not _ILLEGAL_FILE.search(part)


def _shortened(text: str, most: int, original: str) -> str:
    if len(text) <= most:
        return text
    digest = _digest(original)
    return f"{text[: most - len(digest) - 1].rstrip('/.')}-{digest}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
