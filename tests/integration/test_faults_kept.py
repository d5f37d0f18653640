"""``mayfly machine`` with machines that are not there, in use, dead, expired or hostile."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.conftest import Cli
from tests.integration.faults import (
    assert_nothing_left,
    assert_sentence,
    machines_of,
    qemus_of,
    run_job,
    started,
)
from tests.integration.waiting import gone, wait_until

pytestmark = pytest.mark.integration

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
CRASH = "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger"


@contextlib.contextmanager
def kept(cli: Cli, script: str) -> Iterator[str]:
    """Give the id of a machine that was kept after a job of root failed in it."""
    ended = run_job(cli, "--root", "--keep-on-failure", "--", "sh", "-c", f"{script}; exit 3")
    assert "is kept, stopped" in ended.said, ended
    name = ended.status["machine"]
    try:
        yield name
    finally:
        cli("machine", "delete", name)
        assert_nothing_left(cli.home)


def on_terminal(cli: Cli, *words: str, typed: bytes = b"", until: bytes = b"") -> tuple[int, bytes]:
    """Run a command on a terminal; what is typed is sent when ``until`` was shown."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        cli.argv(*words), stdin=side, stdout=side, stderr=side, env=cli.environment(), cwd="/"
    )
    os.close(side)
    shown = b""
    deadline = time.monotonic() + 60
    with contextlib.suppress(OSError):  # EIO: the last one has let go of it
        while select.select([main], [], [], max(0, deadline - time.monotonic()))[0]:
            shown += os.read(main, 65536)
            if typed and until in shown:
                os.write(main, typed)
                typed = b""
    os.close(main)
    process.kill()
    return process.wait(), shown


# --- machines that are not there, or are somebody's ----------------------------------------------


@pytest.mark.parametrize("name", ["", "../../etc", "aaaaaaaa", "x" * 300])
def test_a_name_that_is_no_machine(cli: Cli, name: str) -> None:
    for verb in ("show", "ssh", "logs", "delete"):
        done = cli("machine", verb, "--", name)
        assert done.returncode == 4, verb
        assert_sentence(done.stderr.decode(), "no machine")


def test_a_machine_in_use(cli: Cli) -> None:
    with started(cli, "--no-workdir", "--", "sh", "-c", "echo ready; read x; exit 7") as run:
        name = run.machine()
        for verb in ("ssh", "logs", "delete"):
            done = cli("machine", verb, name)
            assert done.returncode == 5, verb
            assert_sentence(done.stderr.decode(), f"machine '{name}' is in use", "end that command")
        assert name.encode() in cli("machine", "show", name, check=True).stdout
        assert run.end(b"\n").code == 7
    assert_nothing_left(cli.home)


def test_another_users_machine(cli: Cli) -> None:
    with kept(cli, "true") as name:
        for words in (["list"], ["show", name], ["ssh", name], ["delete", name]):
            argv = [*NOBODY, *cli.argv("machine", *words)]
            env = {**cli.environment(), "HOME": "/nonexistent"}
            done = subprocess.run(argv, capture_output=True, env=env, cwd="/", check=False)
            assert done.returncode == 3, words
            assert_sentence(done.stderr.decode(), f"cannot read {cli.home}", "Permission denied")
        assert cli("machine", "ssh", name, "--", "true").returncode == 0


def test_delete_twice(cli: Cli) -> None:
    with kept(cli, "true") as name:
        assert cli("machine", "delete", name).stdout == f"deleted {name}\n".encode()
        done = cli("machine", "delete", name)
        assert done.returncode == 4
        assert_sentence(done.stderr.decode(), f"no machine '{name}'")


# --- machines that have ended --------------------------------------------------------------------


def test_a_kept_machine_whose_qemu_was_killed(cli: Cli) -> None:
    with kept(cli, "true") as name:
        (qemu,) = qemus_of(cli.home)
        os.kill(qemu, signal.SIGKILL)
        wait_until(lambda: gone(qemu), "QEMU ended")
        for verb in ("ssh", "logs"):
            done = cli("machine", verb, name)
            assert done.returncode == 1
            assert_sentence(done.stderr.decode(), "is not running any more", f"delete {name}")
        done = cli("machine", "list", "--json", check=True)
        assert done.stdout == b"[]\n"
        assert_sentence(done.stderr.decode(), f"removed what was left of machine {name}")
        assert_nothing_left(cli.home)


def test_a_kept_machine_that_has_expired_is_removed(cli: Cli) -> None:
    with kept(cli, "true") as name:
        (place,) = machines_of(cli.home)
        record = json.loads((place / "record.json").read_text())
        (place / "record.json").write_text(json.dumps({**record, "expires_at": time.time() - 1}))
        done = cli("machine", "list", "--json", check=True)
        assert done.stdout == b"[]\n"
        assert_sentence(done.stderr.decode(), name)
        assert_nothing_left(cli.home)


def test_a_kept_machine_that_panicked(cli: Cli) -> None:
    with kept(cli, f"{CRASH}; sleep 1000") as name:
        assert b"Kernel panic" in cli("machine", "logs", name, check=True).stdout
        done = cli("machine", "ssh", name, "--", "true")
        assert done.returncode == 1
        assert_sentence(done.stderr.decode(), f"machine '{name}' has shut down", f"logs {name}")


def test_a_kept_machine_is_powered_off_by_whoever_entered_it(cli: Cli) -> None:
    with kept(cli, "true") as name:
        done = cli("machine", "ssh", name, "--root", "--", "sh", "-c", "poweroff -f; sleep 1000")
        assert done.returncode == 125
        assert_sentence(done.stderr.decode(), "it was powered off from inside")
        done = cli("machine", "ssh", name, "--", "true")
        assert_sentence(done.stderr.decode(), "has shut down")


def test_a_record_that_is_nonsense(cli: Cli) -> None:
    with kept(cli, "true") as name:
        (place,) = machines_of(cli.home)
        good = (place / "record.json").read_text()
        for text in ("", "null", "{}", '{"format": 1}', "\0\0\0"):
            (place / "record.json").write_text(text)
            done = cli("machine", "ssh", name)
            assert done.returncode == 1
            assert_sentence(done.stderr.decode(), "record")
        (place / "record.json").write_text(good)


# --- what a guest says ---------------------------------------------------------------------------


def test_what_a_guest_prints_cannot_play_tricks(cli: Cli) -> None:
    trick = r"\033]0;title\007\033[2J\377\376 end of tricks"
    with kept(cli, f"printf 'begin {trick}\\r\\n' > /dev/ttyS0") as name:
        plain = cli("machine", "logs", name, check=True).stdout
        assert b"begin" in plain
        assert b"end of tricks" in plain
        code, shown = on_terminal(cli, "machine", "logs", name)
        assert code == 0
        assert b"end of tricks" in shown
        assert b"\x1b" not in shown
        assert b"\x07" not in shown


def test_a_false_panic_cannot_play_tricks(cli: Cli) -> None:
    script = r"printf 'Kernel panic \033[2Jnot really\r\n' > /dev/ttyS0; reboot -f; sleep 1000"
    ended = run_job(cli, "--root", "--", "sh", "-c", script)
    ended.assert_failed("Kernel panic", "not really")
    assert "\x1b" not in ended.status["reason"]
    assert_nothing_left(cli.home)


def test_a_flood_on_the_console(cli: Cli) -> None:
    with kept(cli, "yes 0123456789 | head -c 1000000 > /dev/ttyS0") as name:
        said = cli("machine", "logs", name, check=True).stdout
        assert said.count(b"0123456789") > 20_000
        assert len(said) < 1 << 20


def test_the_console_of_a_kept_machine(cli: Cli) -> None:
    with kept(cli, "true") as name:
        code, shown = on_terminal(cli, "machine", "console", name, typed=b"\x1d", until=b"login:")
        assert code == 0
        assert b"Ctrl-] leaves it" in shown
        assert cli("machine", "ssh", name, "--", "echo", "lives").stdout == b"lives\n"
        done = cli("machine", "console", name)
        assert done.returncode == 2
        assert_sentence(done.stderr.decode(), "a console needs a terminal")


def test_a_client_killed_inside_a_kept_machine(cli: Cli) -> None:
    with kept(cli, "true") as name:
        entered = cli.start("machine", "ssh", name, "--", "sh", "-c", "echo in; sleep 1000")
        assert entered.stdout is not None
        assert entered.stdout.readline() == b"in\n"
        entered.kill()
        entered.communicate()
        done = cli("machine", "ssh", name, "--", "echo", "again")
        assert (done.returncode, done.stdout) == (0, b"again\n")
