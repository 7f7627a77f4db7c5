"""Redaction of printed text: passwords and tokens are replaced by stars, and everything else is kept."""

import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote, unquote_plus

_START = re.compile(r"(?<![\w+.:/@%-])[A-Za-z][A-Za-z0-9+.-]*://")
"""The start of a URL. A `://` inside a URL, as in a password, does not count."""
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:@\s]*)(?::\d{0,5})?")
_SECRET_KEY = re.compile(r"(?i)[\w.-]*(?:pass\w*|pwd|token|secret|key|credentials?|signature|\bsig)")
_PAIR = re.compile(
    r"(?i)((?<![A-Za-z0-9])[\w.-]*(?:pass\w*|pwd|token|secret|key|credentials?|signature|\bsig)"
    r"(?:\s*=\s*|%(?:25)*3D|[\"']\s*:\s*[\"']))(?:\"[^\"]*\"|'[^']*'|\{[^}]*\}|[^&\s\"']+)"
)
_AUTHORIZATION = re.compile(r"(?i)\b(Basic|Bearer) +[\w.~+/=-]{6,}")
_MIN_SECRET_CHARACTERS = 3
"""Shortest password that is searched for in other text. A shorter one would match too many places."""


def redact(text: str) -> str:
    """The text with the credentials in its URLs (user and password, token) replaced by stars.

    A URL without a password is unchanged, so that it can be pasted. The path of a file may contain any character.
    """
    starts = [match.start() for match in _START.finditer(text)]
    if not starts:
        return _without_pairs(text)
    ends = [*starts[1:], len(text)]
    parts = [_without_pairs(text[: starts[0]])]
    for start, end in zip(starts, ends, strict=True):
        parts.append(_address(text[start:end], alone=start == 0 and end == len(text)))
    return "".join(parts)


def redact_with(uri: str, text: str) -> str:
    """A text about a URL without the passwords of that URL, in any quoted form."""
    for secret in sorted(set(_secrets(uri)), key=len, reverse=True):
        text = text.replace(secret, "***")
    return redact(text)


def _address(text: str, *, alone: bool) -> str:
    """Redact a text that starts with a URL.

    Args:
        alone: the text is only the URL, so blanks belong to the URL.
    """
    scheme, _, rest = text.partition("://")
    if _is_file(scheme, rest):
        path, mark, query = rest.partition("?")
        return f"{scheme}://{path}{mark}{_without_pairs(query)}"
    line = rest.partition("\n")[0]
    token = line if alone else re.match(r"\S*", line)[0]  # type: ignore[index]
    end = _end_of_credentials(scheme, token, line)
    shown = "***@" if end else ""
    rest = rest[end:]
    token = token[end:] if end <= len(token) else re.match(r"\S*", rest)[0]  # type: ignore[index]
    path, mark, query = token.partition("?")
    return f"{scheme}://{shown}{path}{mark}{_query(query)}{_without_pairs(rest[len(token) :])}"


def _is_file(scheme: str, rest: str) -> bool:
    return scheme.lower().partition("+")[0] in ("sqlite", "file") and rest.startswith("/")


def _end_of_credentials(scheme: str, token: str, line: str) -> int:
    """The offset after `://` at which the credentials of a URL end; 0 if it has none.

    SQLAlchemy accepts unquoted passwords with `/`, `?`, `@` or a blank: everything from the first `:` to an `@`.
    """
    web = scheme.lower() in ("http", "https", "ftp", "ftps", "ws", "wss")
    host = re.split(r"[/?#]", token, maxsplit=1)[0]
    last = token.rfind("@") + 1
    if web and "@" in host:
        return last
    if web and _HOST.fullmatch(host):
        return 0
    user = re.match(r"[^:/@?\s]*", token)[0]  # type: ignore[index]
    if not web and token[len(user) :].startswith("@"):
        return last if "%3a" in user.lower() else 0  # a name without a password
    if not token[len(user) :].startswith(":"):
        return 0
    if last:
        return last
    return 0 if _HOST.fullmatch(host) else line.rfind("@") + 1


def _query(query: str) -> str:
    """Redact `key=value&key=value`, including a value that is itself a quoted list of pairs."""
    shown = []
    for pair in query.split("&"):
        key, mark, _ = pair.partition("=")
        if mark and _SECRET_KEY.fullmatch(unquote_plus(key)):
            shown.append(f"{key}=***")
        else:
            shown.append(_without_pairs(pair))
    return "&".join(shown)


def _without_pairs(text: str) -> str:
    return _AUTHORIZATION.sub(r"\1 ***", _PAIR.sub(r"\1***", text))


def _secrets(uri: str) -> Iterator[str]:
    """Yield the passwords and tokens of a URL, as they are and in the forms in which a message may quote them."""
    scheme, mark, rest = uri.partition("://")
    if not mark or _is_file(scheme, rest):
        return
    end = _end_of_credentials(scheme, rest, rest)
    user, colon, password = rest[: max(end - 1, 0)].partition(":")
    secrets = [password if colon else user]
    for pair in rest[end:].partition("?")[2].split("&"):
        key, _, value = pair.partition("=")
        if _SECRET_KEY.fullmatch(unquote_plus(key)):
            secrets.append(value)
    for secret in secrets:
        forms = (secret, unquote(secret), unquote_plus(secret), quote(secret, safe=""), quote_plus(unquote(secret)))
        yield from (form for form in forms if len(form) >= _MIN_SECRET_CHARACTERS)
