"""``mayfly run`` with real machines: a job there is like a job here."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mayfly.config import Paths
from tests.conftest import Cli

pytestmark = pytest.mark.integration

IMAGE = "debian-12"


def run_in(cli: Cli, *words: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    """Run a shell command line in a machine without a work directory."""
    return cli("run", "-q", IMAGE, "--no-workdir", "--", *words, **more)  # type: ignore[arg-type]


def assert_nothing_left(cli: Cli) -> None:
    """No machine is there: neither on the list nor on the disk."""
    assert json.loads(cli("machine", "list", "--json", check=True).stdout) == []
    machines = Paths.for_user({"MAYFLY_HOME": str(cli.home)}).machines
    assert not machines.exists() or list(machines.iterdir()) == []


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 30) -> None:
    """Wait for a condition, or fail."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def test_output_and_exit_status_are_the_jobs(cli: Cli) -> None:
    done = run_in(cli, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    assert_nothing_left(cli)


def test_a_job_ended_by_a_signal_gives_128_and_its_number(cli: Cli) -> None:
    assert run_in(cli, "sh", "-c", "kill -SEGV $$").returncode == 128 + signal.SIGSEGV


@pytest.mark.parametrize(
    ("word", "code"), [("no-such-program", 127), ("/etc/passwd", 126), ("/nowhere/x", 127)]
)
def test_what_cannot_be_run_is_126_or_127(cli: Cli, word: str, code: int) -> None:
    done = run_in(cli, word)
    assert done.returncode == code
    assert word.encode() in done.stderr


def test_the_job_runs_as_the_calling_user_or_as_root(cli: Cli) -> None:
    done = run_in(cli, "id", "-u")
    assert done.stdout.decode().strip() == str(os.geteuid())
    done = cli("run", "-q", IMAGE, "--no-workdir", "--root", "--", "id", "-un")
    assert done.stdout == b"root\n"


def test_streams_both_ways_are_binary_clean(cli: Cli) -> None:
    data = os.urandom(3 << 20)
    done = run_in(cli, "cat", stdin=data)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()


def test_the_sort_of_the_handbook(cli: Cli) -> None:
    text = "\n".join(str(number) for number in range(1, 200_001)).encode() + b"\n"
    done = run_in(cli, "sort", "-rn", stdin=text)
    assert done.stdout.startswith(b"200000\n199999\n")
    assert done.stdout.endswith(b"\n2\n1\n")


def test_a_closed_pipe_ends_the_job_as_here(cli: Cli) -> None:
    command = " ".join(f"'{word}'" for word in cli.argv("run", "-q", IMAGE, "--no-workdir", "--"))
    script = f"{command} sh -c 'yes | head -c 2147483648' | head -c 5; echo ${{PIPESTATUS[0]}}"
    began = time.monotonic()
    done = subprocess.run(
        check=False,
        args=["bash", "-c", script],
        capture_output=True,
        env=cli.environment(),
        timeout=60,
    )
    assert done.stdout.startswith(b"y\ny\ny")
    assert done.stdout.endswith(b"141\n")
    assert time.monotonic() - began < 30
    assert_nothing_left(cli)


def test_environment_umask_and_odd_arguments_travel(cli: Cli) -> None:
    odd = "a b\n'\"$(x)\\ \udcff"
    done = subprocess.run(
        check=False,
        args=cli.argv(
            *("run", "-q", IMAGE, "--no-workdir", "--env", "FOO=b\nar\udcfe", "--env", "BAZ"),
            *("--", "sh", "-c", 'umask; printf "%s|" "$FOO" "$BAZ" "$LANG" "$1"', "sh", odd),
        ),
        capture_output=True,
        env={**cli.environment(), "BAZ": "q", "LANG": "de_DE.UTF-8", "SECRET": "s"},
        preexec_fn=lambda: os.umask(0o027) and None,
        timeout=60,
    )
    mask, _, rest = done.stdout.partition(b"\n")
    assert mask == b"0027"
    assert rest == b"b\nar\xfe|q|de_DE.UTF-8|" + os.fsencode(odd) + b"|"
    assert b"SECRET" not in run_in(cli, "env").stdout


def test_ten_thousand_arguments(cli: Cli) -> None:
    words = [f"{'x' * 90}{number}" for number in range(10_000)]
    done = run_in(cli, "sh", "-c", 'echo $#; eval echo "\\${$#}"', "sh", *words)
    assert done.stdout.split() == [b"10000", words[-1].encode()]


def test_limits_travel(cli: Cli) -> None:
    command = " ".join(f"'{w}'" for w in cli.argv("run", "-q", IMAGE, "--no-workdir", "--"))
    done = subprocess.run(
        check=False,
        args=["bash", "-c", f"ulimit -Sn 77; {command} sh -c 'ulimit -Sn'"],
        capture_output=True,
        env=cli.environment(),
        timeout=60,
    )
    assert done.stdout == b"77\n"


def test_ctrl_c_reaches_the_job(cli: Cli) -> None:
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    process = cli.start("run", "-q", IMAGE, "--no-workdir", "--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert (output, process.returncode) == (b"caught\n", 9)
    assert_nothing_left(cli)


def test_a_time_limit_ends_the_job_and_says_so(cli: Cli, tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    done = cli(
        *("run", IMAGE, "--no-workdir", "--for", "2s", "--status-file", str(status)),
        *("--", "sleep", "600"),
    )
    assert done.returncode == 124
    assert b"time limit" in done.stderr
    written = json.loads(status.read_text())
    assert (written["who"], written["code"]) == ("job", 124)
    assert "time limit" in written["reason"]


def test_a_daemon_left_behind_does_not_hold_the_run(cli: Cli) -> None:
    done = run_in(cli, "sh", "-c", "sleep 1000 & echo started", timeout_s=30)
    assert (done.returncode, done.stdout) == (0, b"started\n")


def test_unknown_image_is_mayflys_failure(cli: Cli, tmp_path: Path) -> None:
    status = tmp_path / "status.json"
    done = cli("run", "no-such-image", "--status-file", str(status), "--", "true")
    assert done.returncode == 125
    assert b"no image 'no-such-image'" in done.stderr
    assert b"Traceback" not in done.stderr
    written = json.loads(status.read_text())
    assert (written["who"], written["phase"]) == ("mayfly", "template")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--memory", "9999G"), b"this host has"),
        (("--cpus", "255"), b"this host has"),
        (("--memory", "lots"), b"not a size"),
        (("--for", "soon"), b"not a duration"),
        (("--share", "/no/such"), b"no such directory"),
        (("--allow", "example.org:443"), b"--network restricted"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(
    cli: Cli, words: tuple[str, ...], said: bytes
) -> None:
    done = cli("run", IMAGE, *words, "--no-workdir", "--", "true")
    assert done.returncode == 125
    assert said in done.stderr
    assert_nothing_left(cli)


def test_packages_are_known_without_an_update(cli: Cli) -> None:
    assert b"Package: hello\n" in run_in(cli, "apt-cache", "show", "hello").stdout


def test_every_clone_is_its_own(cli: Cli) -> None:
    script = (
        "cat /proc/sys/kernel/random/boot_id /etc/machine-id; hostname; "
        "head -c16 /dev/urandom | od -An -tx1 | tr -d ' '; date +%s"
    )
    seen = []
    for _ in range(3):
        done = run_in(cli, "sh", "-c", script)
        seen.append(done.stdout.decode().split())
        assert abs(int(seen[-1][-1]) - time.time()) < 3
    for position in range(4):
        assert len({lines[position] for lines in seen}) == 3
    assert all(re.fullmatch(r"[0-9a-f]{32}", lines[1]) for lines in seen)


def test_the_work_directory_goes_in_and_changes_come_back(cli: Cli, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "input").write_text("hello\n")
    (work / "sub/same").write_text("same")
    (work / "old").write_text("old")
    before = (work / "sub/same").stat()
    script = "cp input output; echo more >> input; rm old; mkdir new; echo x > new/y; pwd"
    done = cli("run", "-q", IMAGE, "--", "sh", "-c", script, cwd=work)
    assert (done.returncode, done.stdout.decode().strip()) == (0, str(work))
    assert (work / "output").read_text() == "hello\n"
    assert (work / "input").read_text() == "hello\nmore\n"
    assert (work / "new/y").read_text() == "x\n"
    assert (work / "old").read_text() == "old"
    after = (work / "sub/same").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    done = cli("run", "-q", IMAGE, "--sync-delete", "--", "rm", "old", cwd=work)
    assert done.returncode == 0
    assert not (work / "old").exists()


def test_a_file_changed_here_meanwhile_is_kept(cli: Cli, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "file").write_text("before")
    process = cli.start(
        "run", IMAGE, "--", "sh", "-c", "echo ready; read x; echo theirs > file", cwd=work
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    (work / "file").write_text("mine, and newer")
    _, said = process.communicate(b"go\n", timeout=30)
    assert (work / "file").read_text() == "mine, and newer"
    beside = [path for path in work.iterdir() if path.name != "file"]
    assert [path.read_text() for path in beside] == ["theirs\n"]
    assert beside[0].name.encode() in said


def test_a_live_share_is_seen_on_both_sides(cli: Cli, tmp_path: Path) -> None:
    live, fixed = tmp_path / "live", tmp_path / "fixed"
    live.mkdir()
    fixed.mkdir()
    (fixed / "data").write_text("data")
    process = cli.start(
        *("run", "-q", IMAGE, "--share", str(live), "--share", f"{fixed}:ro", "--no-workdir"),
        *("--", "sh", "-c"),
        f"cat {fixed}/data; touch {fixed}/x 2>/dev/null || echo no; echo a > {live}/there; read x; "
        f"cat {live}/here",
    )
    wait_until(lambda: (live / "there").exists() and (live / "there").read_text() == "a\n")
    (live / "here").write_text("from outside\n")
    output, _ = process.communicate(b"\n", timeout=30)
    assert output == b"datano\nfrom outside\n"
    assert (live / "there").stat().st_uid == os.geteuid()


def test_keep_on_failure_keeps_and_delete_removes(cli: Cli) -> None:
    script = "echo note > /tmp/note; exit 3"
    done = cli("run", IMAGE, "--no-workdir", "--keep-on-failure", "--", "sh", "-c", script)
    assert done.returncode == 3
    (kept,) = json.loads(cli("machine", "list", "--json", check=True).stdout)
    name = kept["id"]
    try:
        assert name.encode() in done.stderr
        assert kept["state"] == "kept"
        inside = cli("machine", "ssh", name, "--", "cat", "/tmp/note")
        assert (inside.returncode, inside.stdout) == (0, b"note\n")
        inside = cli("machine", "ssh", name, "--root", "--", "id", "-u")
        assert inside.stdout == b"0\n"
        assert b"Linux" in cli("machine", "logs", name, check=True).stdout
    finally:
        cli("machine", "delete", name, check=True)
    assert_nothing_left(cli)
    assert cli("machine", "ssh", name).returncode == 4


def test_a_success_is_not_kept(cli: Cli) -> None:
    done = cli("run", "-q", IMAGE, "--no-workdir", "--keep-on-failure", "--", "true")
    assert done.returncode == 0
    assert_nothing_left(cli)


def test_a_connection_to_a_machine_has_little_under_way(cli: Cli) -> None:
    script = "cat /proc/net/route"
    words = ("run", IMAGE, "--no-workdir", "--network", "open", "--", "sh", "-c", script)
    done = cli(*words, check=True)
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    # Interface, destination, gateway, flags, references, use, metric, mask, MTU, window, IRTT.
    (default,) = [row for row in rows[1:] if row[1] == "00000000"]
    assert int(default[9]) == 128 << 10
