"""A place without machines: for tests of everything else. What it "runs" is files in a directory.

So it lives as long as real machines do: past the death of the server that asked for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from mayfly.errors import Conflict, Failed, Missing
from mayfly.model import State
from mayfly.ports import LaunchSpec, Offer, Ref, Seen

_SUFFIX = ".machine"
IMAGES = ("debian-12", "alma-9")


class FakePlace:
    """Machines that are files, named for the key that they were launched for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def offers(self) -> Sequence[Offer]:
        """Give two images."""
        return [Offer(image=name, pin=f"{name}@sha512:{'0' * 128}") for name in IMAGES]

    def machines(self) -> Sequence[Seen]:
        """Give what was launched and not ended."""
        found = []
        for file in self.directory.glob("*" + _SUFFIX):
            with contextlib.suppress(FileNotFoundError, ValueError):
                words = json.loads(file.read_text())
                key = file.name.removesuffix(_SUFFIX)
                found.append(Seen(key=key, id=words["id"], state=State(words["state"])))
        return found

    def launch(self, spec: LaunchSpec, key: str) -> Ref:
        """Make the machine of this key, or find it."""
        if spec.image not in IMAGES:
            raise Missing(f"there is no image '{spec.image}'")
        fresh = {"id": secrets.token_hex(4), "state": State.RUNNING.value, "user": spec.user}
        unnamed = self.directory / f".{key}-{secrets.token_hex(4)}"
        unnamed.write_text(json.dumps(fresh))
        try:
            # Whole or not at all, and once.
            os.link(unnamed, self._file(key))
        except FileExistsError:
            fresh = json.loads(self._file(key).read_text())
        finally:
            unnamed.unlink()
        return Ref(id=str(fresh["id"]), host_keys=("ssh-ed25519 AAAAfake",))

    def terminate(self, machine: str) -> None:
        """End a machine."""
        with contextlib.suppress(Missing):
            self._file(self._key_of(machine)).unlink(missing_ok=True)

    def suspend(self, machine: str) -> None:
        """Put it on disk, in words."""
        self._become(machine, State.SUSPENDED)

    def resume(self, machine: str) -> None:
        """Bring it back, in words."""
        self._become(machine, State.RUNNING)

    def reach(self, machine: str) -> Sequence[str]:
        """Give a command that says what it hears: there is no ssh server in a file."""
        self._key_of(machine)
        return ("cat",)

    def verify(self, machine: str, host_keys: Sequence[str]) -> None:
        """See that the file is there and says that it runs."""
        key = self._key_of(machine)
        if json.loads(self._file(key).read_text())["state"] != State.RUNNING.value:
            raise Failed(f"machine '{machine}' does not run")

    def _become(self, machine: str, state: State) -> None:
        file = self._file(self._key_of(machine))
        words = json.loads(file.read_text())
        fresh = file.with_name(f".{file.name}-{secrets.token_hex(4)}")
        fresh.write_text(json.dumps({**words, "state": state.value}))
        fresh.replace(file)

    def _key_of(self, machine: str) -> str:
        for seen in self.machines():
            if seen.id == machine:
                return seen.key
        raise Missing(f"no machine '{machine}'")

    def _file(self, key: str) -> Path:
        if not key or not all(letter.isalnum() or letter == "-" for letter in key):
            raise Conflict(f"{key!r} is no key of a machine")
        return self.directory / f"{key}{_SUFFIX}"
