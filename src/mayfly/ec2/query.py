"""Parameters of a request: read strictly, each at most once, none left over.

Format: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html; lists are
``InstanceId.1``, structures ``Filter.1.Name``, ``Filter.1.Value.2``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from mayfly.ec2.answer import NOT_XML
from mayfly.ec2.fault import Fault, invalid

PARAMETERS = 2500
"""How many a request may have: 1,000 instances, and filters."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def parse_pairs(text: bytes, *, form: bool) -> list[tuple[str, str]]:
    """Split ``a=1&b=2``; in a form ``+`` is a space, in an address it is itself.

    :raises Fault: too many, a broken escape, not UTF-8
    """
    if text.count(b"&") >= PARAMETERS:
        raise Fault("MalformedQueryString", f"more than {PARAMETERS} parameters")
    if _BAD_ESCAPE.search(text):
        raise Fault("MalformedQueryString", "a % without two hexadecimal digits after it")
    pairs = []
    for part in filter(None, text.split(b"&")):
        name, _, value = part.replace(b"+", b" " if form else b"+").partition(b"=")
        try:
            pairs.append((unquote_to_bytes(name).decode(), unquote_to_bytes(value).decode()))
        except UnicodeDecodeError:
            raise Fault("MalformedQueryString", "a parameter is not UTF-8") from None
    return pairs


def merge(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Give the parameters by name.

    :raises Fault: a name that is none, one that comes twice, a value that no answer could hold
    """
    values: dict[str, str] = {}
    for name, value in pairs:
        if not _NAME.fullmatch(name):
            raise Fault("MalformedQueryString", "a parameter has a name that cannot be one")
        if name in values:
            raise Fault("MalformedQueryString", f"the parameter {name} comes twice")
        if NOT_XML.search(value):
            raise invalid(name, "has a character that XML cannot hold")
        values[name] = value
    return values


@dataclass(frozen=True, slots=True)
class Query:
    """Parameters, or those of one structure among them; remembers which were read."""

    values: Mapping[str, str]
    prefix: str = ""
    read: set[str] = field(default_factory=set)

    def text(self, name: str, default: str = "", *, longest: int = 255) -> str:
        """Give a parameter, or the default where it is not there."""
        full = self.prefix + name
        self.read.add(full)
        value = self.values.get(full, default)
        if len(value) > longest:
            raise invalid(full, f"is longer than {longest} characters")
        return value

    def has(self, name: str) -> bool:
        """Tell whether a parameter was given, be it empty."""
        return self.prefix + name in self.values

    def require(self, name: str, *, longest: int = 255) -> str:
        """Give a parameter that must be there.

        :raises Fault: it is not, or is empty
        """
        value = self.text(name, longest=longest)
        if not value:
            message = f"The request must contain the parameter {self.prefix}{name}"
            raise Fault("MissingParameter", message)
        return value

    def whole(self, name: str, *, least: int, most: int, default: int | None = None) -> int | None:
        """Give a whole number within bounds, or the default."""
        value = self.text(name)
        if not value:
            return default
        if not re.fullmatch("[0-9]{1,9}", value) or not least <= int(value) <= most:
            raise invalid(self.prefix + name, f"must be a whole number from {least} to {most}")
        return int(value)

    def flag(self, name: str) -> bool:
        """Give a truth value; false where it is not there."""
        value = self.text(name, "false").lower()
        if value not in ("true", "false"):
            raise invalid(self.prefix + name, "must be true or false")
        return value == "true"

    def texts(self, name: str, *, most: int = 1000) -> tuple[str, ...]:
        """Give a list, in the order of its numbers."""
        numbers = self._numbers(name, most, r"")
        return tuple(self.text(f"{name}.{number}") for number in numbers)

    def structures(self, name: str, *, most: int) -> tuple[Query, ...]:
        """Give a list of structures, in the order of their numbers."""
        numbers = self._numbers(name, most, r"\..+")
        return tuple(Query(self.values, f"{self.prefix}{name}.{n}.", self.read) for n in numbers)

    def finish(self) -> None:
        """Refuse what nobody has read: an option that is not obeyed must not be taken for done.

        :raises Fault: there is something
        """
        left = sorted(self.values.keys() - self.read - {"Action", "Version"})
        if left:
            message = f"The parameter {left[0]} is not recognized here"
            raise Fault("UnknownParameter", message)

    def _numbers(self, name: str, most: int, rest: str) -> list[str]:
        pattern = re.compile(re.escape(self.prefix + name) + r"\.([1-9][0-9]{0,4})" + rest)
        found = {match[1] for each in self.values if (match := pattern.fullmatch(each))}
        if len(found) > most:
            raise Fault("InvalidParameterValue", f"{name} has more than {most} members")
        return sorted(found, key=int)
