"""Name the records made with library copies that pip did not install, and decide which records may be pooled.

Records of one setting made with different copies of a library are different settings: no median is taken over both,
whatever their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.host.libraries import EDITABLE, INSTALLED, contradicts
from bench.results.record import Record

KEY = " source"  # how `bench.host.libraries.key_of` ends
OWN = "bench"


def sources(record: Record) -> dict[str, str]:
    """Return library → the imported copy in words, as far as the record tells."""
    told = record.environment.get("sources") or {}
    return {name: _in_words(each) for name, each in told.items() if each.get("folder")}


def unusual_sources(record: Record) -> dict[str, str]:
    """Return the copies that differ from pip's install in site-packages, or state another version than pip knows.

    bench itself may be an editable install, as in every checkout.
    """
    told = record.environment.get("sources") or {}
    found = sources(record)
    return {name: words for name, words in found.items() if _is_unusual(name, told[name])}


def published_sources(record: Record) -> dict[str, str]:
    """Return the same with bench's own checkout, for its commit."""
    told = (record.environment.get("sources") or {}).get(OWN, {})
    is_checkout = told.get("came_from") not in (None, INSTALLED)
    return ({OWN: _in_words(told)} if is_checkout else {}) | unusual_sources(record)


def version_of(record: Record, library: str) -> str | None:
    """Return the installed version of a library, or that of the imported copy if it states another; None: not known."""
    installed = (record.environment.get("versions") or {}).get(library)
    stated = ((record.environment.get("sources") or {}).get(library) or {}).get("version")
    installed, stated = (each if isinstance(each, str) and each else None for each in (installed, stated))
    return stated if installed is None or contradicts(stated, installed) else installed


def differing_copies(record: Record) -> dict[str, str]:
    """Return the fingerprint's entries for libraries that computed: key → copy; {} if all were as installed."""
    return {name: value for name, value in record.fingerprint.items() if name.endswith(KEY)}


def pool_ids(records: Sequence[Record]) -> list[str]:
    """Return for each record the id of the setting for which it counts.

    That is its setting's id. Records from other copies of a library than the first record of that setting have an id of
    their own.
    """
    return [setting_id + (f" #{number}" if number > 1 else "") for setting_id, number, _ in _pools(records)]


def pool_marks(records: Sequence[Record]) -> dict[str, str]:
    """Return pool id → suffix of the setting's name, "" if all its records are from the same copies."""
    marks = {}
    for pool, (_, number, libraries) in zip(pool_ids(records), _pools(records), strict=True):
        marks[pool] = f" [{', '.join(libraries)} #{number}]" if libraries else ""
    return marks


def _pools(records: Sequence[Record]) -> list[tuple[str, int, list[str]]]:
    """Return for each record its setting, the number of its set of copies within that setting, and the differences."""
    known: dict[str, list[dict[str, str]]] = {}
    for record in records:
        copies = known.setdefault(record.setting_id, [])
        if (own := differing_copies(record)) not in copies:
            copies.append(own)
    found = []
    for record in records:
        copies = known[record.setting_id]
        keys = list(dict.fromkeys(key for each in copies for key in each))
        differing = [key.removesuffix(KEY) for key in keys if len({each.get(key) for each in copies}) > 1]
        found.append((record.setting_id, copies.index(differing_copies(record)) + 1, differing))
    return found


def _is_unusual(name: str, told: Mapping[str, Any]) -> bool:
    usual = (INSTALLED, EDITABLE) if name == OWN else (INSTALLED,)
    return told.get("came_from") not in usual or contradicts(told.get("version"), told.get("installed_version"))


def _in_words(told: Mapping[str, Any]) -> str:
    """Return `9.9 from /home/me/tokenizers (PYTHONPATH, commit 12ab…, changes 34cd…), installed is 0.23.3`."""
    about = [str(told.get("came_from"))]
    if told.get("commit"):
        about.append(f"commit {str(told['commit'])[:12]}")
    if told.get("state"):
        about.append(f"{'changes' if told.get('dirty') else 'files'} {told['state']}")
    version, installed = told.get("version"), told.get("installed_version")
    text = f"{version or 'no stated version'} from {told['folder']} ({', '.join(about)})"
    return f"{text}, installed is {installed}" if contradicts(version, installed) else text
