"""Answers the requests on the control port; each exactly once, some of them later."""

from __future__ import annotations

import contextlib
import gc
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mayfly.guest import assistant, facts, fields
from mayfly.guest.claim import claim, parse_claim
from mayfly.guest.context import check_part, run_part
from mayfly.guest.fields import Refused, shown
from mayfly.guest.flows import Outlet
from mayfly.guest.framing import Frame, FrameError, Kind, pack_message
from mayfly.guest.loop import Loop
from mayfly.guest.machine import Machine
from mayfly.guest.prepare import prepare, start_sshd
from mayfly.guest.renew import parse_identity, parse_refresh, refresh, renew, sample
from mayfly.guest.sessions import receive_visit
from mayfly.guest.settle import settle
from mayfly.guest.strip import Former, remember, strip
from mayfly.guest.system import System, Tool
from mayfly.guest.warm import warm_up

SETTLE_LIMIT_S = 3600

Fields = dict[str, Any]
Reply = Callable[[Fields], None]
"""Answers one request; the fields are those of the answer, ``type`` among them."""
Handler = Callable[[Fields, Reply], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the agent acts upon."""

    system: System
    tool: Tool
    sshfs: tuple[str, ...]
    root: str


class Control:
    """The conversations on the control port."""

    def __init__(self, loop: Loop, outlet: Outlet, machine: Machine, around: Surroundings) -> None:
        self._loop = loop
        self._outlet = outlet
        self._machine = machine
        self._around = around
        self._conversation = 0
        self._hello = b""
        self._former: Former | None = None
        self._handlers: Mapping[str, Handler] = {
            "settle": self._settle,
            "prepare": self._prepare,
            "warm": self._warm,
            "sample": self._sample,
            "renew": self._renew,
            "refresh": self._refresh,
            "claim": self._claim,
            "visit": self._visit,
            "quiesce": self._quiesce,
            "strip": self._strip,
            "context": self._context,
        }

    def begin(self) -> None:
        """Say who we are."""
        if not self._hello:
            # Found out once, in the template: a clone has no time for it.
            hello = facts.hello(sshfs=self._around.sshfs, root=self._around.root)
            self._hello = pack_message(hello)
        self._outlet.send(self._hello)

    def lost(self) -> None:
        """Answers that are still owed are for nobody."""
        self._conversation += 1

    def frame(self, frame: Frame) -> None:
        """Take one request."""
        if frame.kind is not Kind.MESSAGE:
            raise FrameError("the control port carries messages only")
        reply = partial(self._reply, self._conversation, frame.message.get("id"))
        handler = self._handlers.get(frame.message["type"])
        try:
            if handler is None:
                raise Refused(f"no such request: '{frame.message['type']}'")
            handler(frame.message, reply)
        except (Refused, OSError) as error:
            reply({"type": "error", "reason": str(error)})

    def _reply(self, conversation: int, number: object, answer: Fields) -> None:
        if conversation == self._conversation:
            self._outlet.send(pack_message({**answer, "id": number}))

    # --- the template ---

    def _settle(self, message: Fields, reply: Reply) -> None:
        timeout_s = fields.seconds(message, "timeout_s", high=SETTLE_LIMIT_S)
        work = partial(settle, timeout_s, self._around.tool, root=self._around.root)
        self._delegate(lambda: json.dumps(work()).encode(), reply)

    def _prepare(self, _: Fields, reply: Reply) -> None:
        around = self._around
        work = partial(prepare, around.tool, root=around.root, fuse=bool(around.sshfs))

        def prepared(result: assistant.Result) -> None:
            if result.ok:
                self._warm({}, reply)
            else:
                _finish(reply, result)

        assistant.start(self._loop, work, prepared)

    def _warm(self, _: Fields, reply: Reply) -> None:
        def warmed() -> None:
            gc.collect()
            gc.freeze()
            reply({"type": "ok"})

        warm_up(self._loop, warmed)

    # --- the clone ---

    def _sample(self, _: Fields, reply: Reply) -> None:
        reply({"type": "ok", **sample(root=self._around.root)})

    def _renew(self, message: Fields, reply: Reply) -> None:
        around = self._around
        self._machine.check_usable()
        try:
            identity = parse_identity(message)
            method = renew(identity, around.system, root=around.root)
        except (Refused, OSError) as error:
            self._machine.renewal_failed(str(error))
            raise
        self._machine.renewed()
        reply({"type": "ok", "method": method, **sample(root=around.root)})
        if identity.host_key is not None:
            work = partial(start_sshd, around.tool, root=around.root)
            # The answer has been given: a server that does not start is not a failed renewal.
            with contextlib.suppress(OSError):
                assistant.start(self._loop, work, lambda _: None)

    def _refresh(self, message: Fields, reply: Reply) -> None:
        self._machine.check_renewed()
        wanted = parse_refresh(message)
        try:
            method = refresh(wanted, self._around.system)
        except OSError as error:
            # From here on it might draw the same numbers as it did before.
            self._machine.renewal_failed(str(error))
            raise
        reply({"type": "ok", "method": method, **sample(root=self._around.root)})

    def _claim(self, message: Fields, reply: Reply) -> None:
        self._machine.check_renewed()
        wanted = parse_claim(message)
        # Of several claims the first one found the machine as its image has it.
        self._former = self._former or remember(wanted.account, root=self._around.root)
        user = claim(wanted, self._around.system, root=self._around.root)
        self._machine.claimed(user, root_allowed=wanted.root)
        reply({"type": "ok"})

    def _visit(self, message: Fields, reply: Reply) -> None:
        def done(trouble: str) -> None:
            reply({"type": "error", "reason": trouble} if trouble else {"type": "ok"})

        receive_visit(self._loop, self._machine, fields.text(message, "port"), done)

    def _quiesce(self, _: Fields, reply: Reply) -> None:
        self._delegate(_sync, reply)

    def _context(self, message: Fields, reply: Reply) -> None:
        part = check_part(fields.text(message, "part"))
        timeout_s = fields.seconds(message, "timeout_s", high=SETTLE_LIMIT_S)
        around = self._around
        self._delegate(partial(run_part, part, timeout_s, around.tool, root=around.root), reply)

    def _strip(self, _: Fields, reply: Reply) -> None:
        around = self._around
        work = partial(strip, self._former, around.tool, root=around.root)
        self._delegate(work, reply)

    def _delegate(self, work: Callable[[], bytes], reply: Reply) -> None:
        assistant.start(self._loop, work, partial(_finish, reply))


def _finish(reply: Reply, result: assistant.Result) -> None:
    if not result.ok:
        reply({"type": "error", "reason": shown(result.report)})
    elif result.report:
        reply({**json.loads(result.report), "type": "ok"})
    else:
        reply({"type": "ok"})


def _sync() -> bytes:
    os.sync()
    return b""
