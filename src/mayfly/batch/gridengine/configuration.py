"""Grid Engine's own configuration: it is asked for and changed by qconf(1), never as files.

What is changed is written down before, as it was, so that it comes back as it was.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path

from mayfly.batch.changes import not_installed
from mayfly.command import Finished, run
from mayfly.errors import Failed, MayflyError

JOURNAL_FORMAT = 1
ASK_LIMIT_S = 30.0
SILENCE_LIMIT_S = 300.0
"""Hosts report every 40 s by default; sites with many of them have it longer."""
POLL_S = 0.5
NONE = "none"
GLOBAL = "global"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One attribute of one object, as it was and as it shall be."""

    kind: str
    """``queue``, ``exechost``, ``conf``, ``complex``."""
    name: str
    attribute: str
    before: str
    """Empty: it was not there (complexes only)."""
    after: str

    def words(self) -> str:
        """Say it, for people."""
        return f"{self.kind} {self.name}: {self.attribute} {self.before or '-'} -> {self.after}"


# --- reading -------------------------------------------------------------------------------------


def show(*words: str) -> str:
    """Ask qconf; raises ``Failed`` with what it said."""
    return _told(run(["qconf", *words], timeout_s=ASK_LIMIT_S, check=False), words)


def _told(done: Finished, words: Sequence[str]) -> str:
    if done.code != 0:
        said = (done.stderr.decode("utf-8", "replace") + done.text()).strip()
        raise Failed(
            f"qconf {' '.join(words)}: {said or f'exit status {done.code}'}",
            hint="this host must be an admin host of the cell that SGE_ROOT and SGE_CELL name",
        )
    return done.text()


def parse(text: str) -> dict[str, str]:
    """Read attributes as qconf(1) shows them; a backslash continues a line."""
    values: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        name, _, value = line.strip().partition(" ")
        if name and not name.startswith("#"):
            values[name] = " ".join(value.split())
    return values


def parse_complexes(text: str) -> dict[str, str]:
    """Read the list of complexes: each a line, by its name."""
    lines = [" ".join(line.split()) for line in text.splitlines() if not line.startswith("#")]
    return {line.split(" ")[0]: line for line in lines if line}


# --- changing ------------------------------------------------------------------------------------


def put(settings: Sequence[Setting]) -> None:
    """Set attributes as they shall be; raises ``Failed``."""
    complexes = {each.name: each.after for each in settings if each.kind == "complex"}
    if complexes:
        _put_complexes(parse_complexes(show("-sc")) | complexes)
    for each in settings:
        _put(each, each.after)


def take_back(settings: Sequence[Setting], tell: Callable[[str], None]) -> list[str]:
    """Set attributes as they were; gives what was changed since, and so left alone.

    Raises ``Failed``; then it can be called again.
    """
    words = []
    for each in reversed(settings):
        if each.kind == "complex":
            continue
        now = _now(each)
        if now == each.after:
            _put(each, each.before)
        elif now != each.before:
            words.append(f"{each.kind} {each.name}: {each.attribute} was changed since: {now}")
    added = {each.name for each in settings if each.kind == "complex"}
    if added:
        _await_silence(added, tell)
        known = parse_complexes(show("-sc"))
        kept = {name: line for name, line in known.items() if name not in added}
        _put_complexes(kept)
    return words


def _await_silence(names: Set[str], tell: Callable[[str], None]) -> None:
    """Wait until no host reports these any more: a complex that one does cannot be removed."""
    deadline = time.monotonic() + SILENCE_LIMIT_S
    while talking := [host for host in show("-sel").split() if _reports(host, names)]:
        if time.monotonic() > deadline:
            raise Failed(
                f"hosts still report what is to be removed: {' '.join(talking[:10])}",
                hint="an execution host that is down reports nothing new: remove it with "
                "'qconf -de', or start its daemon; then call this again",
            )
        tell(f"waiting for the next load report of {len(talking)} hosts")
        time.sleep(POLL_S)


def _reports(host: str, names: Set[str]) -> bool:
    loads = read("exechost", host).get("load_values", "")
    return any(part.partition("=")[0] in names for part in loads.split(","))


def _now(setting: Setting) -> str:
    try:
        return read(setting.kind, setting.name).get(setting.attribute, NONE)
    except MayflyError:
        return setting.before  # The queue or host is gone, and what we changed with it.


def read(kind: str, name: str) -> dict[str, str]:
    """Give an object's attributes."""
    options = {"queue": "-sq", "exechost": "-se", "conf": "-sconf"}
    return parse(show(options[kind], name))


def _put(setting: Setting, value: str) -> None:
    if setting.kind == "conf":
        _put_global({**read("conf", setting.name), setting.attribute: value})
    elif setting.kind != "complex":
        show("-rattr", setting.kind, setting.attribute, value, setting.name)


def _put_global(values: Mapping[str, str]) -> None:
    _put_file("-Mconf", GLOBAL, [f"{name} {value}" for name, value in values.items()])


def _put_complexes(lines: Mapping[str, str]) -> None:
    _put_file("-Mc", "complexes", list(lines.values()))


def _put_file(option: str, name: str, lines: Sequence[str]) -> None:
    """Hand qconf a file; the name of the one for a configuration is what it is of."""
    with tempfile.TemporaryDirectory(prefix="mayfly-") as directory:
        path = Path(directory) / name
        path.write_text("".join(f"{line}\n" for line in lines))
        show(option, str(path))


# --- the journal ---------------------------------------------------------------------------------


def write_journal(file: Path, settings: Sequence[Setting]) -> None:
    """Write down what is going to be changed, in addition to what was before."""
    known = {_place(each): each for each in read_journal(file)} if file.exists() else {}
    for each in settings:
        earlier = known.get(_place(each))
        known[_place(each)] = each if earlier is None else _since(earlier, each)
    text = json.dumps({"format": JOURNAL_FORMAT, "settings": [asdict(x) for x in known.values()]})
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}.new")
        fresh.write_text(text)
        fresh.chmod(0o600)
        fresh.replace(file)
    except OSError as error:
        raise Failed(f"cannot write down what is changed, {file}: {error.strerror}") from error


def _place(setting: Setting) -> tuple[str, str, str]:
    return setting.kind, setting.name, setting.attribute


def _since(earlier: Setting, now: Setting) -> Setting:
    return Setting(**{**asdict(now), "before": earlier.before})


def read_journal(file: Path) -> list[Setting]:
    """Give what was changed; raises ``Missing`` without a journal, ``Failed`` when it is none."""
    try:
        stored = json.loads(file.read_text())
        return [Setting(**each) for each in stored["settings"]]
    except FileNotFoundError as error:
        raise not_installed(file) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"cannot read what was installed, {file}: {error}") from error
