"""Mask tokens and passwords in everything that bench writes: records, logs, and printed lines.

Secrets are the values of environment variables with telling names, the passwords in addresses in the environment, the
token stored by the hub's own login, and passwords in any address, before its host or in its query. Each is replaced in
its plain, JSON, Python repr and URL-encoded forms.

Not covered: values shorter than six characters and plain numbers, which occur too often with another meaning; other
encodings (base64) and split values; and secrets that none of these sources contains.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

MASK = "***"
SHORTEST = 6  # characters; shorter values occur within ordinary words

# Must not match PWD, which is the working folder, nor TOKENIZERS_PARALLELISM.
_SECRET_NAME = re.compile(
    r"TOKEN(?!IZ)|PASSWORD|PASSWD|PASSPHRASE|SECRET|CREDENTIAL|COOKIE|BEARER|_PWD$|_AUTH$|AUTHORIZATION"
    r"|(API|ACCESS|PRIVATE|ACCOUNT|SIGNING|ENCRYPTION)_?KEY|_KEY$",
    re.IGNORECASE,
)
_SECRET_IN_QUERY = re.compile(r"token|passw|passphrase|pwd|secret|credential|signature|auth|key", re.IGNORECASE)
# Prefixes of the tokens of well-known services: a user name with one is a password.
_TOKEN = re.compile(r"(hf_|gh[a-z]_|github_pat_|glpat-|dapi|sk-|xox[a-z]-)[\w-]{8}")
# scheme://user:PASSWORD@host. A number up to the end of the authority is a port; a password may contain an unquoted
# slash or another @.
_PASSWORD = re.compile(r'(://[^\s/:@"\[]*:)(?!\d*(?:[/?#\s"\',;)]|$))([^\s"]{1,300})(?=@)')
# An address up to its query, and a name and its value in the query. A backslash there is a JSON escape.
_QUERY = re.compile(r"""(://[^\s"'<>?\\]*\?)([^\s"'<>\\]+)""")
_PARAMETER = re.compile(r"([\w.%-]+)=([^&#]+)")
# Names of secret parameters. Must not match viewStateShareKey, which MLflow's own pages use.
_SECRET_PARAMETER = re.compile(
    r"token$|passw|passphrase|pwd$|secret|credential|signature$|(^|[_.-])(auth|sig|key)$|(api|access|private|account)key$",
    re.IGNORECASE,
)
# Words that records contain. They are not masked even if one of them is a password, so that records stay readable.
PUBLIC = frozenset((
    "adaptive", "autotune", "bfloat16", "converged", "crashed", "cudagraph_record", "cudagraph_skip", "default",
    "disabled", "dynamic", "enabled", "evidence", "failed", "failure", "fidelity", "float16", "float32", "forkserver",
    "graph_break", "inductor", "interrupted", "measurement", "not_converged", "pretrained", "profile", "random",
    "recompile", "reference", "roofline", "shuffled", "skipped", "static", "timeout", "validation", "warmup",
))  # fmt: skip
# Values that may occur in JSON outside strings.
_NUMBERS = re.compile(r"(?!.*[a-zE]{6})[\d\s.,:+\[\]{}eEtrufalsn-]+")
_JSON = re.compile(r'[{\[]\s*["{\[\]}]')
_JSON_ESCAPE = r'\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt])'


def without_credentials(uri: str) -> str:
    """Return an address without user, password and query. Database files and other texts are unchanged."""
    scheme, separator, rest = uri.partition("://")
    if not separator or (_is_sqlite(scheme) and rest.startswith("/")):
        return uri
    host = rest.removeprefix(_user_info(rest))
    return f"{scheme}://{re.split('[?#]', host, maxsplit=1)[0]}"


def has_credentials(uri: str) -> bool:
    """Check whether an address has a password before its host or a secret in its query; a user name alone is none."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return False
    user, colon, password = _user_info(rest).removesuffix("@").partition(":")
    if (colon and password) or _TOKEN.match(user):
        return True
    if _is_sqlite(scheme) and "?" not in rest:
        return False
    query = re.split("#", rest.partition("?")[2], maxsplit=1)[0]
    return any(_SECRET_IN_QUERY.search(name) and value for name, value in urllib.parse.parse_qsl(query))


def scrub(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return the text with *** in place of every known secret; the text itself if it contains none.

    JSON, which is recognised by its beginning, stays valid, and its keys are unchanged.

    Args:
        text: of any length.
        environment: the variables; None: those of this process.
    """
    return _scrub(text, os.environ if environment is None else environment, is_json=bool(_JSON.match(text)))


def scrub_texts(texts: Sequence[str], environment: Mapping[str, str] | None = None) -> list[str]:
    """Mask the secrets in many short texts, in the time for one."""
    found = json.loads(_scrub(json.dumps(texts), os.environ if environment is None else environment, is_json=True))
    return [str(each) for each in found]


def scrub_file(path: Path, environment: Mapping[str, str] | None = None) -> bool:
    """Mask the secrets in a text file in place; return whether anything was replaced, False if the file is missing.

    The file is replaced atomically: readers find the old file or the new one. A process that is still writing would
    continue with the old one, therefore call this only after it has ended.
    """
    try:
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return False
    scrubbed = _scrub(text, os.environ if environment is None else environment, is_json=False)
    if scrubbed == text:
        return False
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(scrubbed.encode("utf-8", "surrogateescape"))
        temporary.chmod(path.stat().st_mode & 0o7777)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return True


# ---- addresses -----------------------------------------------------------------------------------------------------


def _is_sqlite(scheme: str) -> bool:
    return scheme.partition("+")[0] == "sqlite"


def _user_info(rest: str) -> str:
    """Return `user:password@` at the beginning of the part after `://`; "" without one."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return authority.rpartition("@")[0] + "@"
    # A password with an unquoted slash; but a number there is a port, and brackets are IPv6.
    port = authority.rpartition(":")[2]
    if ":" in authority and port and not port.isdecimal() and not authority.startswith("[") and "@" in rest:
        return rest.rpartition("@")[0] + "@"
    return ""


# ---- what is secret ------------------------------------------------------------------------------------------------


def _secrets(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        stripped = value.strip()
        if _SECRET_NAME.search(name):
            if not _is_path(stripped):
                yield stripped
        elif "://" in stripped:
            for found in _PASSWORD.finditer(stripped):
                yield found[2]
                yield urllib.parse.unquote(found[2])
            for query in _QUERY.finditer(stripped):
                for parameter, each in _PARAMETER.findall(query[2]):
                    if _SECRET_PARAMETER.search(parameter):
                        yield each
                        yield urllib.parse.unquote_plus(each)
    if token := _stored_token(_token_path(environment)):
        yield token


def _is_path(value: str) -> bool:
    """Check whether a value is an existing path, such as that of a credentials file, and not a secret itself."""
    if "/" not in value:
        return False
    try:
        return Path(value).expanduser().exists()
    except (OSError, RuntimeError, ValueError):
        return False


def _token_path(environment: Mapping[str, str]) -> Path:
    """Return the path at which huggingface_hub stores the token of its login."""
    if path := environment.get("HF_TOKEN_PATH"):
        return Path(path)
    home = environment.get("HOME") or "~"
    caches = environment.get("XDG_CACHE_HOME") or f"{home}/.cache"
    return Path(environment.get("HF_HOME") or f"{caches}/huggingface") / "token"


@functools.cache
def _stored_token(path: Path) -> str:
    with contextlib.suppress(OSError, RuntimeError, ValueError):
        return path.expanduser().read_text(encoding="utf-8").strip()
    return ""


def _is_telling(value: str) -> bool:
    """Check whether a value is distinguishable from other content of a record."""
    return len(value) >= SHORTEST and value.lower() not in PUBLIC and not _NUMBERS.fullmatch(value)


# ---- replacing -----------------------------------------------------------------------------------------------------


def _scrub(text: str, environment: Mapping[str, str], *, is_json: bool) -> str:
    # Search for each one first: most texts contain none of them, and this is faster than a regular expression.
    forms = [form for form in _forms(environment, is_json=is_json) if form in text]
    if forms:
        longest_first = map(re.escape, sorted(forms, key=len, reverse=True))
        # Match escapes as a whole: no value begins inside "\n", even if one begins with an n.
        every = f"({'|'.join(longest_first)})" + (f"|{_JSON_ESCAPE}" if is_json else "")
        text = re.sub(every, _masked, text)
    if "://" in text and _PASSWORD.search(text):
        text = _PASSWORD.sub(rf"\g<1>{MASK}", text)
    if "://" in text and "=" in text:
        text = _QUERY.sub(lambda found: found[1] + _PARAMETER.sub(_masked_parameter, found[2]), text)
    return text


def _masked_parameter(found: re.Match[str]) -> str:
    return f"{found[1]}={MASK}" if _SECRET_PARAMETER.search(found[1]) else found[0]


def _forms(environment: Mapping[str, str], *, is_json: bool) -> set[str]:
    """Return all forms in which a secret may appear."""
    forms = set()
    for value in filter(_is_telling, _secrets(environment)):
        raw = value.encode("utf-8", "surrogateescape")
        forms |= {value, repr(value)[1:-1], urllib.parse.quote_plus(raw)}
        forms |= {urllib.parse.quote(raw, safe=safe) for safe in ("", "/", " +")}
    escaped = {each for form in forms for each in _escaped(form)}
    # Unescaped, a value with a quote or a backslash may look like JSON syntax; JSON inside JSON is escaped twice.
    return escaped | {each for form in escaped for each in _escaped(form)} if is_json else forms | escaped


def _escaped(text: str) -> set[str]:
    return {json.dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}


def _masked(found: re.Match[str]) -> str:
    secret, text = found[1], found.string
    if secret is None:
        return found[0]
    is_key = text[found.start() - 1 : found.start()] == '"' and text.startswith('":', found.end())
    is_word = re.fullmatch(r"[a-z_]+\d?[a-z_]*", secret) and not _TOKEN.match(secret)
    return secret if is_key and is_word else MASK  # keep a key of the record itself
