"""The work directory of one session, on both of its ways."""

from __future__ import annotations

from collections.abc import Callable

from mayfly.engine.session.job import Workdir
from mayfly.engine.session.notes import Notes, Progress, Remark, printable
from mayfly.engine.session.receive import Receiver
from mayfly.engine.session.send import Source, open_tree, survey
from mayfly.units import show_size

BYTES_PER_S = 256 << 10
ENTRIES_PER_S = 20
"""A copy back that is slower than these is taken for hung."""


class Transfer:
    """Sends the directory, then receives what the job changed; raises at once if it cannot."""

    def __init__(self, workdir: Workdir, notes: Notes, report: Callable[[str], None]) -> None:
        self._workdir = workdir
        self._notes = notes
        self._report = report
        self._tree = open_tree(workdir)
        try:
            self._plan = survey(workdir, self._tree)
        except BaseException:
            self._tree.close()
            raise
        self._source = Source(self._tree, self._plan, notes)
        self._progress = Progress(report)
        self._receiver: Receiver | None = None
        self._stopped = False
        self._ended = not workdir.copy_back

    def close(self) -> None:
        """Finish or undo what is half done."""
        if self._receiver is not None:
            self._receiver.close()
        self._tree.close()

    # --- in --------------------------------------------------------------------------------------

    @property
    def sending(self) -> bool:
        """Whether there is more to send."""
        return not self._stopped and not self._source.finished

    def read(self, limit: int) -> bytes:
        """Give more of the stream to the machine."""
        data = self._source.read(limit)
        self._progress.step(self._in_words)
        return data

    def stop_sending(self) -> None:
        """The machine wants no more of it."""
        self._stopped = True

    def _in_words(self) -> str:
        done, total = show_size(self._source.size_bytes), show_size(self._plan.size_bytes)
        return f"copying the work directory in ({done} of {total})"

    # --- back ------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether nothing more is to come."""
        return self._ended

    def begin_back(self) -> None:
        """The job has ended: what it changed comes now."""
        if not self._ended:
            self._receiver = Receiver(self._tree, self._workdir, self._source.sent, self._notes)
            self._progress = Progress(self._report)

    def feed(self, data: bytes) -> None:
        """Take more of the stream from the machine."""
        if self._receiver is None:
            return
        self._receiver.feed(data)
        self._progress.step(self._back_in_words)
        if self._receiver.overrun:
            self._ended = True
            where = printable(self._receiver.last)
            self._notes.say(f"the copy back was ended at its limits, at {where}")

    def end(self) -> bool:
        """Take the end of the stream; ``False`` when it comes too early."""
        whole = self._receiver is None or self._receiver.ended
        self._ended = self._ended or whole
        return whole

    def seconds_allowed(self) -> float:
        """Give how long what came so far may have taken."""
        if self._receiver is None:
            return 0
        return self._receiver.size_bytes / BYTES_PER_S + self._receiver.entries / ENTRIES_PER_S

    def tell_missing(self) -> None:
        """Say what did not come back, if anything, and name what is known of it."""
        if self._ended:
            return
        self._notes.say(self._missing())
        if self._receiver is not None and self._receiver.unfinished:
            self._notes.add(Remark.UNFINISHED, self._receiver.unfinished)

    def _missing(self) -> str:
        count = self._receiver.entries if self._receiver is not None else 0
        if self._receiver is None or not count:
            return "nothing of what the job changed in the work directory was copied back"
        last = printable(self._receiver.last)
        return (
            f"the copy back of the work directory is not complete: it ended after {count} paths, "
            f"at {last}; there may be more that the job changed, which the machine did not name yet"
        )

    def _back_in_words(self) -> str:
        receiver = self._receiver
        if receiver is None:
            return ""
        size = show_size(receiver.size_bytes)
        return f"work directory: {size} in {receiver.files} files copied back"
