"""Which names an authority may issue certificates for: ``*.signing_policy`` and ``*.namespaces``.

A name must be allowed as a whole. What cannot be read allows nothing.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mayfly.images.lists.names import plain

SELF = "SELF"
"""In a ``*.namespaces`` file: the authority that the file lies beside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """One line: an authority may, or may not, issue names of this pattern."""

    issuer: str
    pattern: re.Pattern[str]
    allowed: bool = True

    def fits(self, subject: str) -> bool:
        """Tell whether it speaks of this name."""
        return self.pattern.fullmatch(plain(subject)) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """What the files of one kind say; each kind that speaks of an authority must allow."""

    where: str
    permits: tuple[Permit, ...]

    def speaks_of(self, issuer: str) -> bool:
        """Tell whether there is anything about this authority."""
        return any(plain(permit.issuer) == plain(issuer) for permit in self.permits)

    def allows(self, issuer: str, subject: str) -> bool:
        """Tell whether the authority may issue a certificate of this name."""
        own = [each for each in self.permits if plain(each.issuer) == plain(issuer)]
        fitting = [permit for permit in own if permit.fits(subject)]
        return bool(fitting) and all(permit.allowed for permit in fitting)


def glob(pattern: str) -> re.Pattern[str]:
    """Give a pattern of ``*`` and ``?``; all else means itself."""
    signs = {"*": ".*", "?": "."}
    text = "".join(signs.get(letter) or re.escape(letter) for letter in plain(pattern))
    return re.compile(text, re.DOTALL)


# --- Globus: signing_policy ----------------------------------------------------------------------


def parse_signing_policy(text: str) -> tuple[Permit, ...]:
    """Read a ``*.signing_policy`` file: what each authority may sign."""
    return tuple(_signing_policies(_lines(text)))


def _signing_policies(lines: Iterable[list[str]]) -> Iterator[Permit]:
    issuer, may_sign = "", False
    for words in lines:
        match words:
            case ["access_id_CA", _, name]:
                issuer, may_sign = name, False
            case [key, *_] if key.startswith("access_id_"):
                issuer, may_sign = "", False
            case ["pos_rights", "globus", "CA:sign"]:
                may_sign = bool(issuer)
            case ["neg_rights", *_]:
                may_sign = False
            case ["cond_subjects", "globus", subjects] if may_sign:
                for subject in _subjects(subjects):
                    yield Permit(issuer=issuer, pattern=glob(subject))
            case _:
                pass


def _subjects(text: str) -> list[str]:
    """Give the names in a value: one without quotes, or several with."""
    if '"' not in text and "'" not in text:
        return [text.strip()] if text.strip() else []
    return [word for word in _words(text) if word]


# --- EUGridPMA: namespaces -----------------------------------------------------------------------


def parse_namespaces(text: str, own: str = "") -> tuple[Permit, ...]:
    """Read a ``*.namespaces`` file; ``own`` is the authority that ``SELF`` means in it."""
    return tuple(_namespaces(_lines(re.sub(r"\\\r?\n", " ", text)), own))


def _namespaces(lines: Iterable[list[str]], own: str) -> Iterator[Permit]:
    for words in lines:
        match [word.lower() for word in words]:
            case ["to", "issuer", _, ("permit" | "deny") as verb, "subject", _]:
                issuer = own if words[2].upper() == SELF else words[2]
                pattern = _pattern(words[5])
                if issuer and pattern is not None:
                    yield Permit(issuer=issuer, pattern=pattern, allowed=verb == "permit")
            case _:
                pass


def _pattern(text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text, re.DOTALL)
    except re.error:
        return None


# --- words ---------------------------------------------------------------------------------------


def _lines(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if words := _words(line):
            yield words


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return []
