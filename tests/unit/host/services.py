"""A host service in the test's own process, its clients, and machines that are no machines."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from mayfly.engine.linux import start_time
from mayfly.errors import MayflyError
from mayfly.host import door, line, making, pool, protocol
from mayfly.host.limits import overhead_mib
from mayfly.host.logs import LogStore
from mayfly.host.metrics import Metrics
from mayfly.host.peer import Peer
from mayfly.host.permission import Gate
from mayfly.host.rights import Rights
from mayfly.host.settings import HostSettings, Standby
from mayfly.host.state import Hosted, Hot, Service, host_memory_mib
from mayfly.host.templates import Templates
from mayfly.host.watching import end, forget_client, unwatch
from mayfly.images.catalogue import DISK, Catalogue
from mayfly.images.catalogue.record import RECORD, Facts, make_record, write_record
from mayfly.model import Shape
from tests.unit.engine.templates import engine_in
from tests.unit.host.qemus import Script, starter

LIMIT_S = 20.0
SMALL = Shape(cpus=1, memory_mib=512)
ROOT, ALICE, BOB = 0, 54_321, 54_322


def add_image(images: Path, name: str) -> None:
    """Put an image into a catalogue: a few bytes in place of a disk."""
    place = images / name
    place.mkdir(parents=True)
    (place / DISK).write_text(name)
    facts = Facts(os="debian 12", source="a test", disk_bytes=1 << 30)
    write_record(place / RECORD, make_record(name, place / DISK, facts))


@dataclass(slots=True, kw_only=True, eq=False)
class Asked:
    """A client, and what it was told so far."""

    desk: Desk
    port: socket.socket
    told: list[dict[str, Any]] = field(default_factory=list)
    fds: list[int] = field(default_factory=list)

    def send(self, op: str, **fields: Any) -> None:
        """Ask, and do not wait."""
        self.raw(json.dumps({"v": 1, "op": op, **fields}).encode())

    def raw(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Send a packet of any kind."""
        socket.send_fds(self.port, [data], list(fds))

    def hear(self) -> None:
        """Take in what has arrived."""
        with contextlib.suppress(BlockingIOError):
            while (got := protocol.receive(self.port)) is not None:
                self.told.append(got[0])
                self.fds += got[1]

    def is_closed(self) -> bool:
        """Tell whether the service has hung up."""
        self.hear()
        with contextlib.suppress(BlockingIOError):
            return self.port.recv(1) == b""
        return False

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        """Give what was told of these kinds."""
        self.hear()
        return [one for one in self.told if one["type"] in kinds]

    def answer(self) -> dict[str, Any]:
        """Wait for an answer, and forget what was told up to it; raises what it says."""
        self.desk.until(lambda: self.of("ok", "error") != [], "an answer")
        (got, *_) = self.of("ok", "error")
        del self.told[: self.told.index(got) + 1]
        if got["type"] == "error":
            raise protocol.error_of(got)
        return got

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask and wait for the answer."""
        self.send(op, **fields)
        return self.answer()

    def why_not(self, op: str, **fields: Any) -> MayflyError:
        """Ask for what is refused; gives the reason."""
        return refused(lambda: self.ask(op, **fields))

    def claim(self, **fields: Any) -> dict[str, Any]:
        """Ask for a machine and wait for it."""
        return self.ask("claim", **claim_fields(**fields))

    def close(self) -> None:
        """Hang up."""
        for fd in self.fds:
            os.close(fd)
        self.fds.clear()
        self.port.close()


def claim_fields(**changes: Any) -> dict[str, Any]:
    """Give a request for a machine."""
    return {"image": "debian-12", "cpus": 1, "memory_mib": 512, **changes}


@dataclass(slots=True, kw_only=True)
class Desk:
    """A service whose loop goes round as long as a test waits for something."""

    service: Service
    top: Path
    monkeypatch: pytest.MonkeyPatch
    uid: int = ALICE
    """Who the next client is."""
    pid: int = 0
    """Which process the next client is; 0: this one."""
    clients: list[Asked] = field(default_factory=list)

    def until(self, condition: Callable[[], bool], what: str, *, limit_s: float = LIMIT_S) -> None:
        """Let the service work until something is so."""
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {limit_s:g} s in vain for {what}"
            self.service.loop.run_once(0.01)

    def see_to_changes(self) -> None:
        """Do as the service does when there may be room."""
        line.advance(self.service)
        pool.refill(self.service)

    def settle(self) -> None:
        """Let the service do what is to be done now."""
        for _ in range(5):
            self.service.loop.run_once(0)

    def connect(self, uid: int | None = None) -> Asked:
        """Connect as a user."""
        self.uid = ALICE if uid is None else uid
        port = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        port.connect(str(self.service.settings.socket))
        port.setblocking(False)
        asked = Asked(desk=self, port=port)
        self.clients.append(asked)
        self.settle()
        return asked

    def peer(self) -> Peer:
        """Give who connects."""
        pid = self.pid or os.getpid()
        return Peer(pid=pid, uid=self.uid, gid=self.uid, gids=(), started=start_time(pid) or 0)

    def script(self, **changes: Any) -> None:
        """Say what machines that are made from here on do."""
        script = Script(begun=self.top / "begun", **changes)
        self.monkeypatch.setattr(making, "start_machine", starter(script))

    def settings(self, **changes: Any) -> None:
        """Change what the site has set."""
        self.service.settings = replace(self.service.settings, **changes)

    def limit(self, **changes: Any) -> None:
        """Set limits of all users together."""
        self.settings(limits=replace(self.service.settings.limits, **changes))

    def keep_ready(self, count: int = 1, image: str = "debian-12") -> None:
        """Have so many standbys, and wait for them."""
        standby = Standby(image=image, least=count, most=max(count, 4))
        self.service.hot[image, SMALL] = Hot(standby=standby)
        self.service.changed()
        self.until(lambda: len(self.ready(image)) == count, "the standbys")

    def ready(self, image: str = "debian-12") -> list[Hosted]:
        """Give the standbys."""
        return self.service.table.standbys(image, SMALL)

    @property
    def made(self) -> int:
        """How many machines were begun so far."""
        return len(list((self.top / "begun").iterdir())) if (self.top / "begun").exists() else 0

    @property
    def host_mib(self) -> int:
        """Give the memory of this computer."""
        return host_memory_mib()

    def only(self) -> Hosted:
        """Give the one machine that there is."""
        (hosted,) = self.service.table
        return hosted

    def places(self) -> list[str]:
        """Give what lies where the machines are."""
        machines = self.service.engine.paths.machines
        return sorted(os.listdir(machines)) if machines.exists() else []

    def emptied(self) -> None:
        """Wait until there is no machine, nor anything of one."""
        self.until(lambda: list(self.service.table) == [], "the end of all machines")
        assert self.places() == []

    def lose_callers(self) -> None:
        """Lose the connections, as a service that is killed does; their clients go on."""
        for hosted in self.service.table:
            hosted.caller = None

    def die(self) -> None:
        """Lose what a service that is killed loses; machines and files stay."""
        for client in self.clients:
            client.close()
        self.until(lambda: not self.service.callers, "the clients to be gone")
        for hosted in self.service.table:
            unwatch(self.service, hosted)
            forget_client(self.service, hosted)
            if hosted.machine is not None:
                hosted.machine.control.close()
                hosted.machine.process.let_go()
            hosted.ended = True
            hosted.place.release()
        self.service.table.machines.clear()

    def close(self) -> None:
        """End everything; a machine that cannot be ended fails the test."""
        self.service.stopping = True
        for client in self.clients:
            client.close()
        for hosted in self.service.table:
            end(self.service, hosted, "the test is over")
        service = self.service
        self.until(lambda: not service.callers and not [*service.table], "the end of everything")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A service at work, without standbys, whose machines are processes of a test."""
    # A socket's path is short.
    with tempfile.TemporaryDirectory() as short:
        settings = HostSettings(
            socket=Path(short) / "host.sock", state=tmp_path / "state", allow_emulation=True
        )
        desk = Desk(service=_service(tmp_path, settings), top=tmp_path, monkeypatch=monkeypatch)
        monkeypatch.setattr(door, "peer_of", lambda _: desk.peer())
        monkeypatch.setattr(making, "template_for", lambda engine, image, shape, report: shape)
        monkeypatch.setattr(making, "open_memory", lambda *_: os.open("/dev/null", os.O_RDONLY))
        desk.script()
        listener = door.listen(settings.socket)
        door.open_door(desk.service, listener)
        desk.service.on_change = desk.see_to_changes
        yield desk
        desk.close()
        listener.close()


def _service(top: Path, settings: HostSettings) -> Service:
    engine = engine_in(top)
    settings.state.mkdir(exist_ok=True)
    paths = replace(engine.paths, state=settings.state)
    add_image(engine.paths.images, "debian-12")
    rights = Rights(settings.state / "rights", overhead_mib=overhead_mib("tcg"), boot_id="a boot")
    assert rights.load() == []
    return Service(
        engine=replace(engine, paths=paths),
        settings=settings,
        catalogue=Catalogue(own=engine.paths.images, dirs=(engine.paths.images,)),
        rights=rights,
        logs=LogStore(settings.state / "logs", settings.logs),
        metrics=Metrics(),
        templates=Templates(engine.paths.templates),
        gate=Gate(policy_file=top / "policy.toml", site_trust=top / "trust"),
    )


def refused(call: Callable[[], object]) -> MayflyError:
    """Give the error that a call ends with."""
    with pytest.raises(MayflyError) as caught:
        call()
    return caught.value
