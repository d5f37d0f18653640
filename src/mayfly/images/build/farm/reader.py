"""Read a recipe: a TOML file that says what goes into an image. Every error names file and line."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

from mayfly.errors import Invalid
from mayfly.images.build.farm.blueprint import (
    SCRIPT_LIMIT_S,
    Blueprint,
    Check,
    NewUser,
    Pinned,
    PlacedFile,
    Script,
)
from mayfly.images.build.farm.manifest import read_pins
from mayfly.images.build.farm.table import Table, read_table
from mayfly.images.build.mirror import given_mirror, mirror_for
from mayfly.images.build.recipe import (
    DISK_BYTES,
    Init,
    Mirror,
    Recipe,
    check_disk_bytes,
    check_packages,
    find_recipe,
)
from mayfly.images.catalogue.reference import check_name, is_version
from mayfly.units import MIB, parse_duration, parse_size

SUFFIX = ".toml"
FILE_MOST = 64 * MIB
SCRIPT_MOST = MIB
UID_LEAST, UID_MOST = 100, 59_999
DAY_S = 86_400.0
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
FOREIGN_LACKS = ("documentation", "init", "manifest")
"""Keys that say how Debian's own packages are installed."""
_NOT_INTO = ("proc", "sys", "dev", "run", "tmp")


def is_file(text: str) -> bool:
    """Tell whether somebody means a file by this, and not a recipe of ours."""
    return text.endswith(SUFFIX) or "/" in text


def read_blueprint(file: Path) -> Blueprint:
    """Read a recipe and all files that it names, which lie beside it or are named from / on."""
    table = read_table(file)
    recipe = find_recipe(_base(table))
    made = Blueprint(
        recipe=recipe,
        name=table.parsed("name", check_name, file.name.removesuffix(SUFFIX)),
        version=table.parsed("version", _version, ""),
        tags=tuple(table.tried("tags", _tag, tag) for tag in table.texts("tags")),
        files=tuple(_file(each) for each in table.tables("file")),
        scripts=tuple(_script(table, name) for name in table.texts("scripts")),
        users=tuple(_user(each) for each in table.tables("user", 100)),
        checks=tuple(_check(each) for each in table.tables("check", 1000)),
        mirror=_mirror(table, recipe),
        keyring=_keyring(table, recipe),
        script_limit_s=table.parsed("script_limit", _limit, SCRIPT_LIMIT_S),
        source=str(file),
    )
    check_name_of(table, made.name)
    made = replace(made, recipe=_recipe(table, made), pins=_pins(table))
    table.finish()
    return made


def check_name_of(table: Table, name: str) -> None:
    """Refuse a name that comes from the file's own, where that is none for an image."""
    table.tried("name", check_name, name)


def read_script(file: Path) -> Script:
    """Read a script that is named on the command line."""
    return Script(name=file.name, content=_content(file, SCRIPT_MOST))


def _base(table: Table) -> str:
    base = table.text("base")
    table.tried("base", find_recipe, base)
    return base


def _recipe(table: Table, made: Blueprint) -> Recipe:
    packages = table.texts("packages")
    for package in packages:
        table.tried("packages", lambda text: check_packages((text,), made.recipe.family), package)
    for key in FOREIGN_LACKS:
        if made.recipe.archive is not None and key in table.values:
            raise table.error(key, f"has no meaning with base '{made.recipe.name}'")
    return replace(
        made.recipe,
        packages=packages,
        disk_bytes=table.parsed("size", _disk_bytes, DISK_BYTES),
        init=table.parsed("init", _init, made.recipe.init),
        lean=not table.flag("documentation", default=not made.recipe.lean),
    )


def _init(text: str) -> Init:
    if text not in [init.value for init in Init]:
        raise Invalid(f"must be one of {', '.join(init.value for init in Init)}, not '{text}'")
    return Init(text)


def _disk_bytes(text: str) -> int:
    return check_disk_bytes(parse_size(text))


def _version(text: str) -> str:
    if not is_version(text):
        raise Invalid(f"'{text}' is not a version", hint="letters, digits and . _ + ~ -")
    return text


def _tag(text: str) -> str:
    if not _TAG.fullmatch(text):
        raise Invalid(f"'{text}' is not a tag", hint="letters, digits and . _ + -, 64 at most")
    return text


def _limit(text: str) -> float:
    seconds = parse_duration(text)
    if not 0 < seconds <= DAY_S:
        raise Invalid(f"'{text}' must be longer than nothing, and a day at most")
    return seconds


def _mirror(table: Table, recipe: Recipe) -> Mirror | None:
    main = table.text("mirror", "")
    security = table.text("security_mirror", "")
    if security and not main:
        raise table.error("security_mirror", "has no meaning without 'mirror'")
    if not main:
        return None
    table.tried("mirror", given_mirror, main)
    return table.tried(
        "security_mirror" if security else "mirror",
        lambda text: mirror_for(recipe, text, security or None),
        main,
    )


def _keyring(table: Table, recipe: Recipe) -> str:
    name = table.text("keyring", "")
    if name and recipe.archive is None:
        raise table.error("keyring", f"has no meaning with base '{recipe.name}'")
    return str(_beside(table, name)) if name else ""


def _pins(table: Table) -> tuple[Pinned, ...]:
    name = table.text("manifest", "")
    return table.tried("manifest", lambda _: read_pins(_beside(table, name)), name) if name else ()


# --- files, scripts, users, checks ---------------------------------------------------------------


def _file(table: Table) -> PlacedFile:
    path = table.text("path", longest=1024)
    table.tried("path", _guest_path, path)
    given = [key for key in ("source", "content") if key in table.values]
    if len(given) != 1:
        raise table.error("path", "either 'source', a file, or 'content' must be given")
    source, text = table.text("source", ""), table.text("content", "", longest=SCRIPT_MOST)
    if source:
        content = table.tried(
            "source", lambda name: _content(_beside(table, name), FILE_MOST), source
        )
    else:
        content = text.encode()
    made = PlacedFile(
        path=path.lstrip("/"),
        content=content,
        mode=table.parsed("mode", _mode, 0o644),
        owner=table.parsed("owner", _account, "root"),
        group=table.parsed("group", _account, "root"),
    )
    table.finish()
    return made


def _guest_path(text: str) -> None:
    parts = PurePosixPath(text).parts
    if not text.startswith("/") or len(parts) < 2 or text.endswith("/"):
        raise Invalid(f"'{text}' is not the path of a file from / on")
    if ".." in parts or "\n" in text:
        raise Invalid(f"'{text}' must not have '..' or line breaks in it")
    if parts[1] in (*_NOT_INTO, ".mayfly"):
        raise Invalid(f"'{text}': nothing that lies there is kept in an image")


def _mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3,4}", text):
        raise Invalid(f"'{text}' is not a mode", hint='write it as "0644"')
    return int(text, 8)


def _account(text: str) -> str:
    if not _ACCOUNT.fullmatch(text):
        raise Invalid(f"'{text}' is not the name of an account")
    return text


def _script(table: Table, name: str) -> Script:
    content = table.tried("scripts", lambda text: _content(_beside(table, text), SCRIPT_MOST), name)
    return Script(name=Path(name).name, content=content)


def _user(table: Table) -> NewUser:
    made = NewUser(
        name=table.tried("name", _account, table.text("name")),
        uid=table.number("uid", None, UID_LEAST, UID_MOST),
        groups=tuple(table.tried("groups", _account, group) for group in table.texts("groups")),
        shell=table.parsed("shell", _absolute, "/bin/bash"),
        home=table.parsed("home", _absolute, ""),
    )
    table.finish()
    return made


def _absolute(text: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._+-]+)+", text) or ".." in text.split("/"):
        raise Invalid(f"'{text}' is not a path from / on")
    return text


def _check(table: Table) -> Check:
    command = table.text("command", longest=SCRIPT_MOST)
    made = Check(
        name=table.text("name", command.strip().splitlines()[0][:60] if command.strip() else ""),
        command=command,
        code=table.number("code", 0, 0, 255) or 0,
        output=table.text("output", ""),
        user=table.parsed("user", _either, "root"),
        limit_s=table.parsed("limit", _limit, 60.0),
    )
    if not made.command.strip():
        raise table.error("command", "must not be empty")
    table.finish()
    return made


def _either(text: str) -> str:
    if text not in ("root", "user"):
        raise Invalid(f"must be 'root' or 'user', not '{text}'")
    return text


def _beside(table: Table, name: str) -> Path:
    return table.file.parent / name


def _content(file: Path, most: int) -> bytes:
    try:
        if not file.is_file():
            raise Invalid(f"there is no file {file}")
        with file.open("rb") as opened:
            content = opened.read(most + 1)
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
    if len(content) > most:
        raise Invalid(f"{file} has more than {most} bytes", hint="have a script fetch it instead")
    return content
