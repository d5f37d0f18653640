"""The Debian package and the archive: installed, upgraded, rolled back and removed for real."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mayfly import __version__
from mayfly.engine.memory import Holder, write_holder
from mayfly.engine.records import Place, Record
from mayfly.model import State
from tests.conftest import REPOSITORY
from tests.integration.chroots import Chroot, chroot, tree_with
from tests.integration.waiting import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(1200),  # the first time, two systems are made
    pytest.mark.skipif(os.geteuid() != 0, reason="installs into systems of its own"),
]

LATER = f"{__version__}+later"
TOOLS = ("lintian", "apparmor", "systemd", "python3-minimal")
WANTS = "/etc/systemd/system/multi-user.target.wants/mayfly-host.service"
MACHINES = "/var/lib/mayfly/host/machines/thishost"
# Stands in for systemd, which needs to be process 1: starts what the unit says, and keeps a list.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>/root/calls
alive() { [ -f /root/pid ] && kill -0 "$(cat /root/pid)" 2>/dev/null; }
stop() { kill -TERM "$(cat /root/pid)"; while alive; do sleep 0.1; done; }
start() {
    setsid $(sed -n 's/^ExecStart=//p' /lib/systemd/system/mayfly-host.service) \\
        </dev/null >>/root/service.log 2>&1 &
    echo $! >/root/pid
}
case " $* " in
*" is-active "*) alive ;;
*" is-enabled "*) echo disabled; exit 1 ;;
*" try-restart "*) ! alive || { stop; start; } ;;
*" start "*) alive || start ;;
*" stop "*) ! alive || stop ;;
*" daemon-reload "*) ;;
*) exit 1 ;;
esac
"""


def needed() -> tuple[str, ...]:
    lines = (REPOSITORY / "packaging/needs.txt").read_text().splitlines()
    names = [line.split()[1] for line in lines if line.startswith("depends ")]
    return tuple(name.partition(">=")[0] for name in names)


def packaged(kind: str, output: Path, version: str = __version__) -> Path:
    program = REPOSITORY / "scripts/package"
    argv = [program, kind, "--output", output, "--version", version]
    done = subprocess.run([str(word) for word in argv], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


@pytest.fixture(scope="module")
def debs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    output = tmp_path_factory.mktemp("debs")
    return packaged("deb", output), packaged("deb", output, LATER)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    output = tmp_path_factory.mktemp("archives")
    return packaged("archive", output), packaged("archive", output, LATER)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Chroot]:
    """A system that has everything that Mayfly needs, and no Mayfly."""
    with chroot(tree_with(needed()), tmp_path / "system") as system:
        yield system


@pytest.fixture
def tools(tmp_path: Path) -> Iterator[Chroot]:
    """A system that judges packages, and has nothing that Mayfly needs but a Python."""
    with chroot(tree_with(TOOLS), tmp_path / "tools") as system:
        yield system


@pytest.fixture
def managed(host: Chroot) -> Chroot:
    """A host whose services are managed."""
    program = host.path("/usr/local/bin/systemctl")
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    host("mkdir", "-p", "/run/systemd/system")
    return host


def version_of(system: Chroot, program: str = "mayfly") -> str:
    return system(program, "--version").stdout.split()[-1]


def serving(system: Chroot) -> str:
    """Give the version of the service that answers, or nothing."""
    asked = system("mayfly", "host", "status", "--json", check=False)
    if asked.returncode != 0:
        return ""
    version = json.loads(asked.stdout)["version"]
    assert isinstance(version, str)
    return version


# --- the Debian package --------------------------------------------------------------------------


def test_a_package_installs_and_its_purge_leaves_nothing(
    host: Chroot, debs: tuple[Path, Path]
) -> None:
    before = host.files()
    host("dpkg", "--install", host.take(debs[0]))
    assert version_of(host) == __version__
    assert "--config" in host("mayfly", "host", "serve", "--help").stdout
    found = {item["name"]: item for item in json.loads(looked(host))}
    for name in ("QEMU", "qemu-img", "xorriso", "sshfs", "sftp-server", "nft", "pasta"):
        assert found[name]["ok"], found[name]
    assert not host.path(WANTS).is_symlink(), "it is for the administrator to switch it on"
    host("mkdir", "-p", "/var/lib/mayfly/images/mine")
    host("dpkg", "--remove", "mayfly")
    assert host.path("/var/lib/mayfly/images/mine").is_dir()
    assert host.path("/etc/mayfly/host.toml").is_file()
    host("dpkg", "--purge", "mayfly")
    assert host.files() == before


def looked(system: Chroot) -> str:
    """Have the host looked at; that a network lacks here, or memory, is no matter."""
    done = system("mayfly", "doctor", "--json", check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_files_lie_where_they_should_with_the_right_modes(
    host: Chroot, debs: tuple[Path, Path]
) -> None:
    before = host.files()
    host("dpkg", "--install", host.take(debs[0]))
    new = host.files() - before
    wanted = {
        "-rwxr-xr-x root /usr/bin/mayfly",
        "-rw-r--r-- root /usr/lib/mayfly/mayfly/cli/main.py",
        "-rw-r--r-- root /usr/lib/mayfly/click/core.py",
        "-rw-r--r-- root /usr/share/bash-completion/completions/mayfly",
        "-rw-r--r-- root /usr/share/zsh/vendor-completions/_mayfly",
        "-rw-r--r-- root /usr/share/fish/vendor_completions.d/mayfly.fish",
        "-rw-r--r-- root /usr/share/man/man1/mayfly.1.gz",
        "-rw-r--r-- root /etc/mayfly/host.toml",
        "-rw-r--r-- root /etc/apparmor.d/mayfly-host",
        "-rw-r--r-- root /etc/apparmor.d/local/mayfly-host",
    }
    assert wanted <= new
    assert any(line.endswith("/lib/systemd/system/mayfly-host.service") for line in new)
    assert not [line for line in new if re.match(r".......s|...s|......s|.{8}w", line)]
    sources = {line.split()[-1] for line in new if line.endswith(".py")}
    cached = {line.split()[-1] for line in new if line.endswith(".pyc")}
    assert len(sources) == len(cached) > 50, "a start must not compile anything"
    completion = "/usr/share/bash-completion/completions/mayfly"
    done = host("bash", "-c", f"source {completion}; complete -p mayfly")
    assert "mayfly" in done.stdout


def test_the_callers_python_settings_decide_nothing(host: Chroot, debs: tuple[Path, Path]) -> None:
    host("dpkg", "--install", host.take(debs[0]))
    host.path("/root/click.py").write_text("raise SystemExit('the wrong click')")
    told = host("sh", "-c", "cd /root; PYTHONPATH=/root PYTHONHOME=/nowhere mayfly --version")
    assert told.stdout.split()[-1] == __version__


def test_an_upgrade_and_the_way_back_restart_the_service(
    managed: Chroot, debs: tuple[Path, Path]
) -> None:
    managed("dpkg", "--install", managed.take(debs[0]))
    settings = managed.path("/etc/mayfly/host.toml")
    changed = "allow_emulation = true\n" + settings.read_text()
    settings.write_text(changed)
    managed("systemctl", "start", "mayfly-host.service")
    wait_until(lambda: serving(managed) == __version__, "the service")
    first = managed.path("/root/pid").read_text()
    managed.path("/root/calls").unlink()
    managed("dpkg", "--install", managed.take(debs[1]))
    wait_until(lambda: serving(managed) == LATER, "the later version")
    assert managed.path("/root/pid").read_text() != first
    managed("dpkg", "--install", managed.take(debs[0]))
    wait_until(lambda: serving(managed) == __version__, "the earlier version")
    # Nothing is ever stopped but by the restart, which ends the service alone (KillMode=process).
    calls = managed.path("/root/calls").read_text().splitlines()
    assert sum("try-restart" in call for call in calls) == 2
    assert not [call for call in calls if re.search(r"\b(stop|kill|disable)\b", call)]
    assert settings.read_text() == changed


def test_an_upgrade_starts_no_service_that_did_not_run(
    managed: Chroot, debs: tuple[Path, Path]
) -> None:
    for deb in debs:
        managed("dpkg", "--install", managed.take(deb))
    assert version_of(managed) == LATER
    assert not managed.path("/root/pid").exists()


def stand_in(system: Chroot) -> tuple[int, int]:
    """Start a process in QEMU's stead; gives its pid in the system, and when it started."""
    pid = int(system("sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!").stdout)
    line = system("cat", f"/proc/{pid}/stat").stdout
    return pid, int(line.rpartition(")")[2].split()[19])


def machine(system: Chroot, name: str, state: State, owner: int | None) -> int:
    """Have a machine of the host service run, as far as its record tells; gives its pid."""
    pid, started = stand_in(system)
    place = system.path(f"{MACHINES}/{name}")
    place.mkdir(parents=True)
    record = Record(
        id=name,
        image="debian-12",
        template="t",
        cpus=1,
        memory_mib=512,
        network="none",
        state=state,
        command='sh -c \'echo "pid": 1, "owner": null\'',
        created_at=0.0,
        pid=pid,
        started=started,
        owner=owner,
    )
    Place(place, -1).write(record)
    return pid


def alive(system: Chroot, pid: int) -> bool:
    return system("sh", "-c", f"kill -0 {pid}", check=False).returncode == 0


def test_no_removal_while_somebodys_machine_runs(managed: Chroot, debs: tuple[Path, Path]) -> None:
    managed("dpkg", "--install", managed.take(debs[0]))
    running = machine(managed, "runn2222", State.RUNNING, owner=1000)
    standby = machine(managed, "standby2", State.STANDBY, owner=None)
    done = managed("dpkg", "--purge", "mayfly", check=False)
    assert done.returncode != 0
    assert "runn2222" in done.stderr
    assert "standby2" not in done.stderr
    assert alive(managed, running)
    assert alive(managed, standby)
    assert version_of(managed) == __version__
    managed("sh", "-c", f"kill -KILL {running}")
    wait_until(lambda: not alive(managed, running), "its end")
    holder_pid, holder_started = stand_in(managed)
    template = managed.path("/var/cache/mayfly/templates/t")
    template.mkdir(parents=True)
    write_holder(template, Holder(pid=holder_pid, started=holder_started, fd=3, until=1e12))
    managed("dpkg", "--purge", "mayfly")
    wait_until(lambda: not alive(managed, standby), "the end of what nobody would look after")
    wait_until(lambda: not alive(managed, holder_pid), "the end of what held a template's memory")
    assert not managed.path("/var/lib/mayfly").exists()


def test_no_removal_while_a_service_runs_that_systemd_did_not_start(
    host: Chroot, debs: tuple[Path, Path]
) -> None:
    host("dpkg", "--install", host.take(debs[0]))
    host.path("/etc/mayfly/host.toml").write_text("allow_emulation = true\n")
    start = "mayfly host serve >/dev/null 2>&1 & echo $!"
    service = int(host("sh", "-c", start).stdout)
    wait_until(lambda: serving(host) == __version__, "the service")
    done = host("dpkg", "--purge", "mayfly", check=False)
    assert done.returncode != 0
    assert "stop it first" in done.stderr
    assert serving(host) == __version__
    host("sh", "-c", f"kill -TERM {service}")
    wait_until(lambda: not alive(host, service), "the end of the service")
    host("dpkg", "--purge", "mayfly")
    assert not host.path("/var/lib/mayfly").exists()


def test_no_process_is_ended_for_a_number_that_is_used_again(
    host: Chroot, debs: tuple[Path, Path]
) -> None:
    host("dpkg", "--install", host.take(debs[0]))
    pid = machine(host, "standby2", State.STANDBY, owner=None)
    record = host.path(f"{MACHINES}/standby2/record.json")
    other = json.loads(record.read_text())
    record.write_text(json.dumps({**other, "started": other["started"] - 1}))
    host("dpkg", "--purge", "mayfly")
    assert alive(host, pid)


# --- the archive ---------------------------------------------------------------------------------


def unpacked(system: Chroot, archive: Path) -> str:
    system("tar", "-C", "/root", "-xf", system.take(archive))
    return f"/root/{archive.name.removesuffix('.tar.gz')}"


def test_the_archive_installs_without_a_network(
    managed: Chroot, archives: tuple[Path, Path]
) -> None:
    interfaces = managed("cat", "/proc/net/dev").stdout.splitlines()[2:]
    assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
    before = managed.files()
    managed(f"{unpacked(managed, archives[0])}/install")
    program = "/usr/local/bin/mayfly"
    assert version_of(managed, program) == __version__
    assert "--config" in managed(program, "host", "serve", "--help").stdout
    unit = managed.path("/etc/systemd/system/mayfly-host.service").read_text()
    assert "\nExecStart=/usr/local/bin/mayfly host serve " in unit
    assert "/usr/bin/mayfly" not in unit
    trace = managed(program, "--debug", "run", "nothing", check=False).stderr
    assert "/usr/local/lib/mayfly/mayfly/" in trace or "Traceback" not in trace
    later = unpacked(managed, archives[1])
    managed(f"{later}/install")
    assert version_of(managed, program) == LATER
    managed(f"{later}/uninstall", "--purge")
    assert managed.files() == before


def test_the_archive_restarts_a_running_service(
    managed: Chroot, archives: tuple[Path, Path]
) -> None:
    managed(f"{unpacked(managed, archives[0])}/install")
    settings = managed.path("/etc/mayfly/host.toml")
    settings.write_text("allow_emulation = true\n" + settings.read_text())
    managed("ln", "-s", "/etc/systemd/system/mayfly-host.service", "/lib/systemd/system/")
    managed("systemctl", "start", "mayfly-host.service")
    wait_until(lambda: serving(managed) == __version__, "the service")
    managed(f"{unpacked(managed, archives[1])}/install")
    wait_until(lambda: serving(managed) == LATER, "the later version")
    assert settings.read_text().startswith("allow_emulation = true\n")
    assert managed.path("/etc/mayfly/host.toml.new").is_file()


def test_the_archive_goes_to_any_directory(host: Chroot, archives: tuple[Path, Path]) -> None:
    folder = unpacked(host, archives[0])
    host("useradd", "--create-home", "ann")
    host("cp", "-r", folder, "/home/ann/unpacked")
    host("chown", "-R", "ann", "/home/ann/unpacked")
    before = host.files()
    as_ann = ("setpriv", "--reuid=ann", "--regid=ann", "--clear-groups")
    host(*as_ann, "/home/ann/unpacked/install", "--prefix", "/home/ann/here")
    assert version_of(host, "/home/ann/here/bin/mayfly") == __version__
    outside = [line for line in host.files() - before if " /home/ann/" not in line]
    assert not outside
    host(*as_ann, "/home/ann/here/lib/mayfly/uninstall")
    assert host.files() == before


def test_the_archive_names_what_the_host_lacks(tools: Chroot, archives: tuple[Path, Path]) -> None:
    folder = unpacked(tools, archives[0])
    before = tools.files()
    done = tools(f"{folder}/install", check=False)
    assert done.returncode == 1
    packages = " ".join(name for name in needed() if name != "python3")
    assert f"-> apt-get install --no-install-recommends {packages}\n" in done.stderr
    assert tools.files() == before
    tools("mv", "/usr/bin/apt-get", "/root/apt-get")
    tools("ln", "-s", "/bin/true", "/usr/bin/dnf")
    done = tools(f"{folder}/install", check=False)
    assert "-> dnf install qemu-kvm qemu-img xorriso " in done.stderr


# --- what other programs say about it ------------------------------------------------------------


def test_lintian_has_nothing_to_say(tools: Chroot, debs: tuple[Path, Path]) -> None:
    done = tools("lintian", "--allow-root", "--fail-on=error,warning", tools.take(debs[0]))
    assert done.stdout == ""


def test_systemd_and_apparmor_understand_their_files(
    tools: Chroot, debs: tuple[Path, Path]
) -> None:
    tools("dpkg", "--unpack", "--force-depends", tools.take(debs[0]))
    unit = "/lib/systemd/system/mayfly-host.service"
    said = tools("systemd-analyze", "verify", "--man=no", unit)
    assert (said.stdout, said.stderr) == ("", "")
    judged = tools("systemd-analyze", "security", "--offline=true", unit).stdout
    (score,) = re.findall(r"exposure level for mayfly-host.service: ([0-9.]+)", judged)
    page = (REPOSITORY / "docs/howto/install-host.md").read_text()
    assert f"gives it {score}," in page
    profile = tools.take(REPOSITORY / "packaging/apparmor")
    tools("apparmor_parser", "--skip-kernel-load", "--skip-cache", profile)
    names = tools("apparmor_parser", "--names", profile).stdout.split()
    assert names == ["mayfly-host", "mayfly-host//qemu"]
