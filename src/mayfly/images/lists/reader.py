"""Read the text of an image list, as vmcaster and AppDB write it, and as strangers may.

What is wrong with the list as a whole refuses it; an entry that is no usable image is left out and
named, so that one bad entry keeps no site from hearing what was taken back.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from mayfly.images.lists import keys
from mayfly.images.lists.model import (
    TIME_FORMAT,
    Endorser,
    ImageFault,
    ImageList,
    ListedImage,
    Revocation,
    Scalar,
)
from mayfly.images.lists.rules import Refused, Rule
from mayfly.images.lists.uris import STRICT, UriRules, check_uri

BYTES_MOST = 32 << 20
IMAGES_MOST = 10_000
TEXT_MOST = 65_536
LINE_MOST = 2048
EXTRA_MOST = 100
IMAGE_BYTES_MOST = 1 << 44
YEAR_LEAST = 1970
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA512 = re.compile(r"[0-9a-f]{128}")
_VERSION = re.compile(r"[!-~](?:[ -~]{0,98}[!-~])?")
_LONG_TEXT = frozenset({"description", "comments", "source"})
_MAY_BE_EMPTY = frozenset({"description", "comments", "email", "creator", "os_version", "source"})


def parse_list(data: bytes, rules: UriRules = STRICT) -> ImageList:
    """Read a list; raises ``Refused`` when it is none."""
    top = _load(data)
    wrapped = keys.WRAPPER in top
    table = _table(top[keys.WRAPPER], keys.WRAPPER) if wrapped else top
    _check_there(table, keys.LIST_REQUIRED, "the list")
    texts = {field: _text(table, key, field) for key, field in keys.LIST_TEXT.items()}
    _version(texts["version"])
    images, faults = _images(table[keys.IMAGES], rules)
    known = {*keys.LIST_REQUIRED, keys.REVOKED}
    return ImageList(
        **texts,
        identifier=identifier(table),
        created_at=_time(table, keys.CREATED),
        expires_at=_time(table, keys.EXPIRES),
        endorser=_endorser(table[keys.ENDORSER]),
        images=images,
        faults=faults,
        revoked=_revocations(table.get(keys.REVOKED, [])),
        wrapped=wrapped,
        extra=_extra(table, known),
    )


def parse_image(data: bytes, rules: UriRules = STRICT) -> tuple[ListedImage, Endorser]:
    """Read what an image endorser signs: one image, and who says so. Raises ``Refused``."""
    top = _load(data)
    _check_there(top, {keys.IMAGE, keys.ENDORSER}, "the endorsement")
    return _image(_table(top[keys.IMAGE], keys.IMAGE), rules), _endorser(top[keys.ENDORSER])


# --- JSON ----------------------------------------------------------------------------------------


def _load(data: bytes) -> dict[str, Any]:
    if len(data) > BYTES_MOST:
        raise Refused(Rule.SIZE, f"it has {len(data)} bytes, {BYTES_MOST} are allowed")
    try:
        top = json.loads(
            data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant
        )
    except RecursionError as error:
        raise _bad("it is nested too deep") from error
    except ValueError as error:
        raise _bad(f"it is not JSON: {error}") from error
    return _table(top, "the list")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        # Readers differ in which of the two they take: so would those who trust them.
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise _bad(f"it has the key {twice[:100]!r} twice in one place")
    return table


def _no_constant(name: str) -> float:
    raise _bad(f"{name} is not JSON")


def _bad(detail: str) -> Refused:
    return Refused(Rule.FORMAT, detail)


def _table(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _bad(f"{what} is not an object")
    return value


def _check_there(table: Mapping[str, Any], wanted: frozenset[str] | set[str], what: str) -> None:
    if missing := sorted(wanted - table.keys()):
        raise _bad(f"{what} lacks {', '.join(missing)}")


# --- one value -----------------------------------------------------------------------------------


def _text(table: Mapping[str, Any], key: str, field: str) -> str:
    value = table[key]
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # some write versions as numbers
    if not isinstance(value, str):
        raise _bad(f"{key} is not text")
    long = field in _LONG_TEXT
    if len(value) > (TEXT_MOST if long else LINE_MOST):
        raise _bad(f"{key} has {len(value)} letters")
    if not value and field not in _MAY_BE_EMPTY:
        raise _bad(f"{key} is empty")
    if not _is_clean(value, long=long):
        raise _bad(f"{key} has letters that cannot be shown")
    return value


def _is_clean(text: str, *, long: bool) -> bool:
    allowed = "\t\r\n" if long else ""
    return all(letter.isprintable() or letter in allowed for letter in text)


def identifier(table: Mapping[str, Any]) -> str:
    """Read a UUID, in lower case: it may become the name of a file. Raises ``Refused``."""
    value = table[keys.IDENTIFIER]
    if not isinstance(value, str) or not _UUID.fullmatch(value.lower()):
        raise _bad(f"{keys.IDENTIFIER} is not a UUID: {str(value)[:100]!r}")
    return value.lower()


def _version(text: str) -> None:
    if not _VERSION.fullmatch(text):
        raise _bad(f"hv:version is not 1 to 100 letters of ASCII: {text[:100]!r}")


def _time(table: Mapping[str, Any], key: str) -> datetime:
    try:
        moment = datetime.strptime(table[key], TIME_FORMAT).replace(tzinfo=UTC)
    except (TypeError, ValueError) as error:
        raise _bad(f"{key} is not a time: {str(table[key])[:100]!r}") from error
    if moment.year < YEAR_LEAST:
        raise _bad(f"{key} is long before there were lists")
    return moment


def _extra(table: Mapping[str, Any], known: set[str]) -> dict[str, Scalar]:
    """Keep what others added; values that are not simple are of no use to anybody yet."""
    simple = {key: value for key, value in table.items() if key not in known and _is_simple(value)}
    sizes = (max(len(key), len(str(value))) for key, value in simple.items())
    if len(simple) > EXTRA_MOST or max(sizes, default=0) > TEXT_MOST:
        raise _bad("it has too many or too large keys of its own")
    return simple


def _is_simple(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)  # 1e999 is read as infinity, which cannot be written again
    return value is None or isinstance(value, str | int)


def _endorser(value: object) -> Endorser:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]  # vmcaster can hold several endorsers of a list
    table = _table(_table(value, keys.ENDORSER).get(keys.X509), keys.X509)
    _check_there(table, keys.ENDORSER_REQUIRED, keys.X509)
    texts = {field: _text(table, key, field) for key, field in keys.ENDORSER_TEXT.items()}
    return Endorser(**texts, extra=_extra(table, set(keys.ENDORSER_TEXT)))


# --- images --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One entry of the list, read or refused."""

    image: ListedImage | None
    fault: ImageFault | None


def _images(
    value: object, rules: UriRules
) -> tuple[tuple[ListedImage, ...], tuple[ImageFault, ...]]:
    if not isinstance(value, list):
        raise _bad(f"{keys.IMAGES} is not an array")
    if len(value) > IMAGES_MOST:
        raise Refused(Rule.SIZE, f"it has {len(value)} images, {IMAGES_MOST} are allowed")
    entries = [_entry(place, item, rules) for place, item in enumerate(value, start=1)]
    counts = Counter(_identifier_of(item) for item in value)
    entries = [_alone(place, entry, counts) for place, entry in enumerate(entries, start=1)]
    images = tuple(entry.image for entry in entries if entry.image is not None)
    return images, tuple(entry.fault for entry in entries if entry.fault is not None)


def _entry(place: int, item: object, rules: UriRules) -> _Entry:
    try:
        table = _table(_table(item, "the entry").get(keys.IMAGE), keys.IMAGE)
        return _Entry(image=_image(table, rules), fault=None)
    except Refused as error:
        refusal = error.refusal
        if refusal.rule is Rule.FORMAT:
            refusal = replace(refusal, rule=Rule.IMAGE_FORMAT)
        fault = ImageFault(
            place=place, identifier=_identifier_of(item), title=_title_of(item), refusal=refusal
        )
        return _Entry(image=None, fault=fault)


def _alone(place: int, entry: _Entry, counts: Mapping[str, int]) -> _Entry:
    """Leave out all images of one identifier: nobody can know which of them is meant."""
    image = entry.image
    if image is None or counts[image.identifier] == 1:
        return entry
    refused = Refused(Rule.IMAGE_FORMAT, f"the list has {image.identifier} more than once")
    fault = ImageFault(
        place=place,
        identifier=image.identifier,
        title=image.title,
        refusal=refused.refusal,
    )
    return _Entry(image=None, fault=fault)


def _identifier_of(item: object) -> str:
    inner = item.get(keys.IMAGE) if isinstance(item, dict) else None
    value = inner.get(keys.IDENTIFIER) if isinstance(inner, dict) else None
    lower = value.lower() if isinstance(value, str) else ""
    return lower if _UUID.fullmatch(lower) else ""


def _title_of(item: object) -> str:
    inner = item.get(keys.IMAGE) if isinstance(item, dict) else None
    value = inner.get("dc:title") if isinstance(inner, dict) else None
    return value[:100] if isinstance(value, str) and _is_clean(value[:100], long=False) else ""


def _image(table: Mapping[str, Any], rules: UriRules) -> ListedImage:
    _check_there(table, keys.IMAGE_REQUIRED, "the image")
    texts = {field: _text(table, key, field) for key, field in keys.IMAGE_TEXT.items()}
    _version(texts["version"])
    known = {*keys.IMAGE_REQUIRED, keys.FORMAT, keys.EXPIRES, keys.ENDORSEMENT}
    return ListedImage(
        **{**texts, "uri": check_uri(texts["uri"], rules)},
        identifier=identifier(table),
        sha512=_sha512(table[keys.SHA512]),
        size_bytes=_size(table[keys.SIZE]),
        format=_text(table, keys.FORMAT, "format") if table.get(keys.FORMAT) else "",
        expires_at=_time(table, keys.EXPIRES) if table.get(keys.EXPIRES) else None,
        endorsement=_endorsement(table),
        extra=_extra(table, known),
    )


def _sha512(value: object) -> str:
    if not isinstance(value, str) or not _SHA512.fullmatch(value.lower()):
        raise _bad(f"{keys.SHA512} is not a SHA-512: {str(value)[:140]!r}")
    return value.lower()


def _size(value: object) -> int:
    # AppDB writes it as text.
    text = str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not re.fullmatch(r"[0-9]{1,14}", text) or not 0 < int(text) <= IMAGE_BYTES_MOST:
        raise _bad(f"{keys.SIZE} is not a size in bytes: {str(value)[:100]!r}")
    return int(text)


def _endorsement(table: Mapping[str, Any]) -> str:
    value = table.get(keys.ENDORSEMENT, "")
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9+/=]{0,65536}", value):
        raise _bad(f"{keys.ENDORSEMENT} is not base64")
    return value


def _revocations(value: object) -> tuple[Revocation, ...]:
    if not isinstance(value, list) or len(value) > IMAGES_MOST:
        raise _bad(f"{keys.REVOKED} is not an array of revocations")
    return tuple(_revocation(_table(item, keys.REVOKED)) for item in value)


def _revocation(table: Mapping[str, Any]) -> Revocation:
    wanted = {keys.IDENTIFIER, "hv:version", keys.SHA512, "reason", "date"}
    _check_there(table, wanted, keys.REVOKED)
    return Revocation(
        identifier=identifier(table),
        version=_text(table, "hv:version", "version"),
        sha512=_sha512(table[keys.SHA512]),
        reason=_text(table, "reason", "reason"),
        revoked_at=_time(table, "date"),
    )
