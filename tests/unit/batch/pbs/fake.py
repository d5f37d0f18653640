"""A stand-in for the module ``pbs`` that OpenPBS gives its hooks, after its manual."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MODULE = """\
import json, sys
QUEUEJOB, EXECJOB_LAUNCH, EXECJOB_EPILOGUE, EXECJOB_END = 1, 2, 3, 4
LOG_WARNING = 3
told = json.loads(sys.argv[1])
logged = []
def logmsg(level, text): logged.append(text)
def logjobmsg(job, text): logged.append(text)
class Queue:
    name = told["queue"]
class Job:
    id, euser, Job_Owner, queue = "7.srv", told["user"], told["user"] + "@login", Queue()
    Resource_List = told["resources"] or None
    Variable_List, exec_host, run_count = told["variables"], "node1/0*2", 2
    again = False
    def in_ms_mom(self): return True
    def rerun(self): Job.again = True
class Event:
    type = globals()[told["event"]]
    job, requestor = Job(), told["user"]
    progname, argv = "/bin/bash", ["-bash"]
    env = {}
    def accept(self): self.end(True, "")
    def reject(self, message=""): self.end(False, message)
    def end(self, accepted, message):
        print(json.dumps({"accepted": accepted, "message": message, "rerun": Job.again,
            "argv": list(self.argv), "progname": self.progname}))
        sys.exit(0)
one = Event()
def event(): return one
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the hook made of an event."""

    accepted: bool
    message: str
    rerun: bool
    argv: list[str]
    progname: str


def launch(
    hook: Path,
    event: str,
    *,
    resources: Mapping[str, str],
    user: str = "eve",
    queue: str = "virt",
    variables: str = "PBS_O_HOME=/",
) -> Outcome:
    """Run a hook in a Python of its own, as OpenPBS does."""
    (hook.parent / "pbs.py").write_text(MODULE)
    told = {"event": event, "resources": dict(resources), "user": user, "queue": queue}
    begin = f"import sys; sys.path.insert(0, {str(hook.parent)!r}); "
    begin += f"exec(compile(open({str(hook)!r}).read(), 'hook', 'exec'))"
    words = json.dumps({**told, "variables": variables})
    done = subprocess.run(
        [sys.executable, "-c", begin, words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Outcome(**json.loads(done.stdout))
