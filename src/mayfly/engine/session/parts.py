"""What a session consists of, for those who look after one side of it each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mayfly.engine.session.console import Console
from mayfly.engine.session.conversation import Conversation, Stage
from mayfly.engine.session.ending import Ending
from mayfly.engine.session.job import JobRequest
from mayfly.engine.session.link import Link
from mayfly.engine.session.loop import Loop
from mayfly.engine.session.transfer import Transfer
from mayfly.guest.framing import pack_message


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The two sides, and what stands between them."""

    request: JobRequest
    loop: Loop
    link: Link
    conversation: Conversation
    console: Console
    transfer: Transfer | None
    ending: Ending

    @property
    def stage(self) -> Stage:
        """How far the session is."""
        return self.conversation.stage

    @property
    def copied(self) -> bool:
        """Whether nothing more is to be copied back."""
        return self.transfer is None or self.transfer.complete

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message to the agent."""
        self.link.send(pack_message(message))

    def signal_job(self, name: str) -> None:
        """Have the agent send a signal to the job."""
        self.tell({"type": "signal", "signal": name})

    def phase(self) -> str:
        """Name the step that is under way."""
        if self.stage is Stage.SETUP and self.transfer is not None:
            return "copy-in"
        if self.stage is Stage.AFTER:
            return "done" if self.copied else "copy-out"
        return "job" if self.stage is Stage.JOB else "start"
