"""What an OpenPBS server is told by qmgr(8B), and how that is taken back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mayfly.batch.wish import OPTIONS
from mayfly.command import Finished, run
from mayfly.errors import Failed, Missing

HOOK = "mayfly"
RESOURCES = tuple(f"vm_{name}" for name in OPTIONS)
LAUNCH, EPILOGUE = "queuejob,execjob_launch", "execjob_epilogue"
ALARM_S = 90
ASK_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Something that the server is told, and what takes it back."""

    kind: str
    """``hook``, ``resource``."""
    name: str
    words: tuple[str, ...]
    """In their order."""

    @property
    def undo(self) -> str:
        """Give what removes it."""
        return f"delete {self.kind} {self.name}"


def orders(script: Path, *, epilogue: bool) -> list[Order]:
    """Give all that the server is to be told; ``epilogue``: whether our hook may have that event.

    Where a hook has it, PBS calls no epilogue script any more.
    """
    events = f"{LAUNCH},{EPILOGUE}" if epilogue else f"{LAUNCH},execjob_end"
    resources = [
        Order(kind="resource", name=name, words=(f"create resource {name} type=string",))
        for name in RESOURCES
    ]
    hook = Order(
        kind="hook",
        name=HOOK,
        words=(
            f"create hook {HOOK}",
            f'set hook {HOOK} event = "{events}"',
            f"set hook {HOOK} alarm = {ALARM_S}",
            f"import hook {HOOK} application/x-python default {script}",
        ),
    )
    return [*resources, hook]


def is_there(kind: str, name: str) -> bool:
    """Tell whether the server knows something of this name."""
    return _ask(f"list {kind} {name}").code == 0


def tell(told: Sequence[Order], journal: Path) -> None:
    """Tell the server what it does not know yet; raises ``Failed``."""
    fresh = [each for each in told if not is_there(each.kind, each.name)]
    known = read_journal(journal) if journal.exists() else []
    undo = [each.undo for each in fresh]
    write_journal(journal, [*known, *(word for word in undo if word not in known)])
    for each in told:
        # A hook that is there is imported anew: it may be another version's.
        words = each.words if each in fresh else each.words[1:]
        for word in words:
            _order(word)


def take_back(journal: Path) -> list[str]:
    """Remove what we had the server make; gives what could not be, in words."""
    failed = []
    for word in reversed(read_journal(journal)):
        _, kind, name = word.split(" ", 2)
        if is_there(kind, name) and (done := _ask(word)).code != 0:
            failed.append(f"qmgr -c '{word}': {_said(done)}")
    return failed


def _order(word: str) -> None:
    done = _ask(word)
    if done.code != 0:
        raise Failed(
            f"qmgr -c '{word}': {_said(done)}",
            hint="root must be a manager of the PBS server; 'mayfly batch uninstall pbs' takes "
            "back what was done so far",
        )


def _ask(word: str) -> Finished:
    return run(["qmgr", "-c", word], timeout_s=ASK_LIMIT_S, check=False)


def _said(done: Finished) -> str:
    text = (done.stderr.decode("utf-8", "replace") + done.text()).strip()
    return " ".join(text.split()) or f"exit status {done.code}"


def write_journal(file: Path, undo: Sequence[str]) -> None:
    """Write down what takes back what is going to be told."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}.new")
        fresh.write_text(json.dumps({"format": 1, "undo": list(undo)}))
        fresh.chmod(0o600)
        fresh.replace(file)
    except OSError as error:
        raise Failed(f"cannot write down what is changed, {file}: {error.strerror}") from error


def read_journal(file: Path) -> list[str]:
    """Give what takes back what was told; raises ``Missing``, ``Failed``."""
    try:
        undo = json.loads(file.read_text())["undo"]
        if not all(isinstance(word, str) and word.startswith("delete ") for word in undo):
            raise ValueError(undo)
        return list(undo)
    except FileNotFoundError as error:
        raise Missing("nothing is installed there, or not by this command") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failed(f"cannot read what was installed, {file}: {error}") from error
