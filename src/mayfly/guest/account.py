"""The job's user in the guest's tables of users and groups: pure edits of their text.

Lines that are not understood are kept as they are. The user ends up as the only line of the name
and the only one of the number; an image's account with the same number is renamed, so that its
place in other tables (sudo, say) stays useful.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from mayfly.guest.fields import Refused

SYSTEM = 1000
"""Numbers below belong to the system: its daemons look them up by name."""
NO_PASSWORD = "*"  # noqa: S105
"""Matches no password; "!" would also shut out ssh keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group of the host."""

    name: str
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The user of the host whom the machine is for."""

    name: str
    uid: int
    gid: int
    groups: tuple[Group, ...]
    home: str
    login_shell: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The texts of the four files; "" for one that is missing."""

    passwd: str
    group: str
    shadow: str
    gshadow: str


def claimed(tables: Tables, account: Account) -> Tables:
    """Put the account into the tables; root needs no place."""
    if account.uid == 0:
        return tables
    passwd = _split(tables.passwd)
    line = _find_user(passwd, account)
    old = account.name if line is None else line[0]
    passwd = _with_user(passwd, account, line, shadowed=bool(tables.shadow))
    shadow = _with_shadow(_split(tables.shadow), account.name, old=old)
    group = _with_member_renamed(_split(tables.group), old, account.name)
    renamed: dict[str, str] = {}
    for wanted in account.groups:
        group = _with_group(group, wanted, renamed)
        if wanted.gid != account.gid:
            group = _with_member(group, wanted.gid, account.name)
    gshadow = _with_member_renamed(_split(tables.gshadow), old, account.name)
    return Tables(
        passwd=_join(passwd),
        group=_join(group),
        shadow=_join(shadow),
        gshadow=_join(_with_names(gshadow, renamed)),
    )


# --- lines ---

Line = list[str]
"""The fields of one line; a line that is none of the table's has one field, the whole."""


def _split(text: str) -> list[Line]:
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [_fields(line) for line in lines]


def _fields(line: str) -> Line:
    # "+" and "-" stand for other sources of names, and are no names.
    return [line] if line[:1] in ("", "#", "+", "-") else line.split(":")


def _join(lines: Iterable[Line]) -> str:
    return "".join(":".join(line) + "\n" for line in lines)


def _number(line: Line, width: int) -> int | None:
    if len(line) < width or not (line[2].isascii() and line[2].isdigit() and len(line[2]) < 11):
        return None
    return int(line[2])


def _added(lines: list[Line], line: Line) -> list[Line]:
    """Append, but before the lines that ask other sources: what is here comes first."""
    at = next(
        (place for place, other in enumerate(lines) if other[0][:1] in ("+", "-")), len(lines)
    )
    return [*lines[:at], line, *lines[at:]]


def _changed(
    lines: list[Line], matches: Callable[[Line], bool], change: Callable[[Line], Line]
) -> list[Line]:
    return [change(line) if matches(line) else line for line in lines]


# --- users ---


def _uid(line: Line) -> int | None:
    return _number(line, 7)


def _find_user(passwd: list[Line], account: Account) -> Line | None:
    """Give the line that becomes the account's: that of its number, else that of its name."""
    named = [line for line in passwd if line[0] == account.name and len(line) >= 7]
    if any(_uid(line) == 0 for line in named):
        raise Refused(f"the image has '{account.name}' as a name of root")
    numbered = [line for line in passwd if _uid(line) == account.uid]
    return next(iter([*numbered, *named]), None)


def _with_user(
    passwd: list[Line], account: Account, old: Line | None, *, shadowed: bool
) -> list[Line]:
    password = "x" if shadowed else NO_PASSWORD
    comment = "" if old is None else old[4]
    numbers = [str(account.uid), str(account.gid)]
    ours = [account.name, password, *numbers, comment, account.home, account.login_shell]
    kept = [
        ours if line is old else line
        for line in passwd
        if line is old or len(line) < 7 or (line[0] != account.name and _uid(line) != account.uid)
    ]
    return _added(kept, ours) if old is None else kept


def _with_shadow(shadow: list[Line], name: str, *, old: str) -> list[Line]:
    if not shadow:
        return shadow
    kept = [line for line in shadow if old == name or line[0] != name]
    if not any(line[0] == old and len(line) > 1 for line in kept):
        return _added(kept, [name, NO_PASSWORD, "", "", "", "", "", "", ""])
    return _changed(
        kept,
        lambda line: line[0] == old and len(line) > 1,
        lambda line: [name, NO_PASSWORD, *line[2:]],
    )


# --- groups ---


def _gid(line: Line) -> int | None:
    return _number(line, 4)


def _members(line: Line) -> list[str]:
    return [name for name in line[3].split(",") if name]


def _with_member_renamed(group: list[Line], old: str, new: str) -> list[Line]:
    if old == new:
        return group

    def renamed(line: Line) -> Line:
        members = dict.fromkeys(new if name == old else name for name in _members(line))
        return [*line[:3], ",".join(members), *line[4:]]

    return _changed(group, lambda line: len(line) >= 4 and old in _members(line), renamed)


def _with_member(group: list[Line], gid: int, name: str) -> list[Line]:
    return _changed(
        group,
        lambda line: _gid(line) == gid and name not in _members(line),
        lambda line: [*line[:3], ",".join([*_members(line), name]), *line[4:]],
    )


def _with_group(group: list[Line], wanted: Group, renamed: dict[str, str]) -> list[Line]:
    """Let the group exist; ``renamed`` takes note of a name that was changed."""
    if any(line[0] == wanted.name and _gid(line) == wanted.gid for line in group):
        return group
    named = next((line for line in group if line[0] == wanted.name and len(line) >= 4), None)
    numbered = next((line for line in group if _gid(line) == wanted.gid), None)
    if numbered is not None and wanted.gid < SYSTEM:
        # A second name for the number: the first must stay for the system's sake.
        name = wanted.name if named is None else f"{wanted.name}_host"
        return _with_line(group, [name, "x", str(wanted.gid), ""])
    if named is not None and (_gid(named) or 0) < SYSTEM:
        wanted = Group(name=f"{wanted.name}_host", gid=wanted.gid)
        return _with_group(group, wanted, renamed)
    if numbered is not None:
        renamed[numbered[0]] = wanted.name
        kept = [line for line in group if line is not named]
        return _changed(kept, lambda line: line is numbered, lambda line: [wanted.name, *line[1:]])
    if named is not None:
        return _changed(
            group,
            lambda line: line is named,
            lambda line: [line[0], line[1], str(wanted.gid), *line[3:]],
        )
    return _with_line(group, [wanted.name, "x", str(wanted.gid), ""])


def _with_line(group: list[Line], line: Line) -> list[Line]:
    if any(other[0] == line[0] and _gid(other) == _gid(line) for other in group):
        return group
    return _added(group, line)


def _with_names(gshadow: list[Line], renamed: Mapping[str, str]) -> list[Line]:
    return [[renamed.get(line[0], line[0]), *line[1:]] for line in gshadow]
