"""Attackers: programs for root in a guest and for users of the host, and a stopwatch for the host.

The programs for guests are in Perl, which every Debian has.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.host import Host, User, claim_fields

ANSWER_LIMIT_MS = 50
"""How soon the service answers who asks for its status, whatever else is going on."""

AGENT = r"""
use strict; use POSIX qw(setsid); use Fcntl;
my $mode = shift @ARGV; $| = 1;
my (%port, %name, $agent, $out);
for my $path (glob "/dev/virtio-ports/*") { my $dev = readlink $path; $dev =~ s{.*/}{};
    $path =~ s{.*\.}{}; $name{$dev} = $path }
# The agent's own descriptors are taken: it holds each port for as long as it lives.
for my $pid (sort { $a <=> $b } map { m{^/proc/(\d+)$} ? $1 : () } glob "/proc/*") {
    for my $file (glob "/proc/$pid/fd/*") {
        my $dev = readlink $file or next;
        next unless $dev =~ m{/dev/(vport\w+)} and not $port{$name{$1}};
        my $what = $name{$1}; $file =~ m{(\d+)$}; $agent = $pid;
        my $copy = syscall(438, syscall(434, $pid + 0, 0), $1 + 0, 0);
        open($port{$what}, "+<&=", $copy) or die "no port: $!";
    }
}
print "ready\n";
if ($mode ne "session") { close $_ for *STDIN, *STDOUT, *STDERR; exit if fork; setsid(); sleep 1 }
kill STOP => $agent;
open(my $console, ">", "/dev/ttyS0"); syswrite $console, "taken over\n";
for my $handle (values %port) { fcntl($handle, F_SETFL, fcntl($handle, F_GETFL, 0) & ~O_NONBLOCK) }
sub say_all { my ($to, $text) = @_; my $at = 0;
    while ($at < length $text) { $at += syswrite($to, $text, length($text) - $at, $at) // 0 } }
sub frame { pack("CCnN", 1, 0, 0, length $_[0]) . $_[0] }
my $noise = join "", map { chr int rand 256 } 1 .. 65536;
my $control = $port{control};
if ($mode eq "session") { while (1) { say_all($port{session}, $noise) } }
if ($mode eq "nonsense") { while (1) { say_all($control, $noise) } }
if ($mode eq "flood") { my $much = frame('{"type":"x"}') x 4000;
    while (1) { say_all($control, $much) } }
if ($mode eq "silence") { sleep 1000 }
"""

STATUS = """
import json, os, socket, sys, time
path, stop = sys.argv[1:]
taken = []
while not os.path.exists(stop):
    began = time.perf_counter()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(path)
        connection.send(b'{"v": 1, "op": "status"}')
        assert b'"ok"' in connection.recv(65536)
    taken.append((time.perf_counter() - began) * 1000)
    time.sleep(0.01)
print(json.dumps(taken))
"""

REACH = """
import ctypes, errno, json, os, signal, socket, sys
pid, pidfd, mapped, files = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
tried = {}

def attempt(name, call):
    try:
        call()
        tried[name] = "done"
    except OSError as error:
        tried[name] = errno.errorcode[error.errno]

def syscall(*words):
    ctypes.set_errno(0)
    if libc.syscall(*[ctypes.c_long(word) for word in words]) < 0:
        raise OSError(ctypes.get_errno(), "")

def vm_read():
    buffer = ctypes.create_string_buffer(16)
    class Vector(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
    ours, theirs = Vector(ctypes.addressof(buffer), 16), Vector(mapped, 16)
    ctypes.set_errno(0)
    if libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "")

def connect(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)

attempt("kill", lambda: os.kill(pid, signal.SIGSTOP))
attempt("signal by pidfd", lambda: signal.pidfd_send_signal(pidfd, signal.SIGSTOP))
attempt("pidfd_getfd", lambda: syscall(438, pidfd, 0, 0))
attempt("ptrace", lambda: syscall(101, 16, pid, 0, 0))
attempt("seize", lambda: syscall(101, 0x4206, pid, 0, 0))
attempt("process_vm_readv", vm_read)
attempt("mem", lambda: open(f"/proc/{pid}/mem", "rb").close())
attempt("fd", lambda: os.listdir(f"/proc/{pid}/fd"))
attempt("root", lambda: os.listdir(f"/proc/{pid}/root/"))
attempt("environ", lambda: open(f"/proc/{pid}/environ", "rb").read())
attempt("maps", lambda: open(f"/proc/{pid}/maps", "rb").read())
attempt("setns by pidfd", lambda: syscall(308, pidfd, 0x40000000))
attempt("prlimit", lambda: syscall(302, pid, 1, ctypes.addressof(ctypes.c_uint64(0)), 0))
attempt("nice", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
attempt("affinity", lambda: os.sched_setaffinity(pid, {0}))
for path in files:
    attempt(path, lambda: connect(path) if "." not in path else open(path, "rb").close())
print(json.dumps(tried))
"""


@dataclass(slots=True)
class Latency:
    """How long the answers to ``status`` took, in milliseconds."""

    taken: list[float] = field(default_factory=list)

    def assert_soon(self) -> None:
        """At least half of them came in time: the test's own computer may be busy as well."""
        assert len(self.taken) >= 3
        middle = sorted(self.taken)[len(self.taken) // 2]
        assert middle < ANSWER_LIMIT_MS, sorted(self.taken)[-10:]


@contextlib.contextmanager
def status_asked(host: Host) -> Iterator[Latency]:
    """Ask the service for its status again and again, from a process that does nothing else."""
    stop = host.top / "stop"
    latency = Latency()
    argv = [sys.executable, "-I", "-c", STATUS, str(host.socket), str(stop)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            yield latency
        finally:
            stop.touch()
            output, _ = process.communicate(timeout=60)
            stop.unlink()
    latency.taken += json.loads(output)


def memory_mib(host: Host) -> int:
    """Give the memory that the service itself has."""
    assert host.process is not None
    text = Path(f"/proc/{host.process.pid}/status").read_text()
    (line,) = [one for one in text.splitlines() if one.startswith("RssAnon")]
    return int(line.split()[1]) >> 10


def program(code: str, *words: str, user: User, fds: tuple[int, ...] = ()) -> Any:
    """Run Python as a user of the host; gives what it prints, read as JSON."""
    argv = [*user.prefix(), sys.executable, "-I", "-c", code, *words]
    done = subprocess.run(argv, check=True, capture_output=True, pass_fds=fds, cwd="/", timeout=60)
    return json.loads(done.stdout)


def mapped_at(pid: int) -> int:
    """Give an address in a process that can be read."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.split()[1].startswith("r"):
            return int(line.split("-")[0], 16)
    raise AssertionError(pid)


def reached(user: User, pid: int, files: list[Path]) -> dict[str, str]:
    """Give what came of everything that a user can try on a process, and on files."""
    pidfd = os.pidfd_open(pid)
    os.set_inheritable(pidfd, True)
    try:
        words = json.dumps([pid, pidfd, mapped_at(pid), [str(file) for file in files]])
        found: dict[str, str] = program(REACH, words, user=user, fds=(pidfd,))
        return found
    finally:
        os.close(pidfd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A machine that a user has."""

    name: str
    qemu: int
    """Its process."""
    fds: list[int]
    """What the user has got: the session's port, and a handle on QEMU."""


@contextlib.contextmanager
def claimed(host: Host, user: User, **changes: Any) -> Iterator[Claimed]:
    """Have a machine of a user's for a while."""
    with contextlib.closing(host.connect(user)) as connection:
        connection.ask("claim", claim_fields(**changes))
        answer, fds = connection.answer()
        name = answer["machine"]
        try:
            yield Claimed(name=name, qemu=host.record(name)["pid"], fds=fds)
        finally:
            for fd in fds:
                os.close(fd)
