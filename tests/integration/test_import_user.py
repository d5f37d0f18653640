"""An ordinary user imports a disk and a container image, and runs what was made of it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mayfly.images.build.mirror import host_mirror
from mayfly.images.container.kernel import kernel_kit
from tests.conftest import BUILD_LIMIT_S
from tests.integration.test_containers import layers
from tests.unit.images.container import making
from tests.unit.images.disks import raw_disk

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(BUILD_LIMIT_S),
    pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user"),
    pytest.mark.skipif(shutil.which("newuidmap") is None, reason="needs uidmap"),
    pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox-static"),
]
UID, FIRST = 54_323, 700_000
LINES = {
    "passwd": f"importer:x:{UID}:{UID}::/nonexistent:/bin/sh\n",
    "group": f"importer:x:{UID}:\n",
    "subuid": f"importer:{FIRST}:65536\n",
    "subgid": f"importer:{FIRST}:65536\n",
}
# An account that only this process tree sees: the files of the host are covered, not changed.
COVER = """
place=$1; shift
for name in passwd group subuid subgid; do mount --bind "$place/$name" "/etc/$name"; done
exec "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Importer:
    """Somebody with an account, subordinate ids, a home and no rights."""

    place: Path

    @property
    def images(self) -> Path:
        """Give where his images are."""
        return self.place / "home/state/images"

    def run(self, *words: str, limit_s: float = 300) -> subprocess.CompletedProcess[bytes]:
        """Run a command as him."""
        become = [f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", COVER, "sh"]
        argv += [str(self.place / "etc"), "setpriv", *become]
        argv += [sys.executable, "-I", "-m", "mayfly.cli.main", *words]
        home = {"MAYFLY_HOME": str(self.place / "home"), "TMPDIR": str(self.place / "tmp")}
        env = {"PATH": os.environ["PATH"], "HOME": str(self.place), **home}
        return subprocess.run(
            argv, env=env, cwd="/", capture_output=True, timeout=limit_s, check=False
        )

    def good(self, *words: str) -> str:
        """Run a command that must end well; gives its output."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()


def _owned(paths: Sequence[Path]) -> None:
    for path in paths:
        for each in (path, *path.rglob("*")):
            os.chown(each, UID, UID, follow_symlinks=False)


@pytest.fixture
def importer() -> Iterator[Importer]:
    place = Path(tempfile.mkdtemp(prefix="mayfly-importer-", dir="/var/tmp"))
    place.chmod(0o755)
    for name in ("home/cache", "tmp", "etc"):
        (place / name).mkdir(parents=True)
    for name, line in LINES.items():
        (place / "etc" / name).write_text(Path("/etc", name).read_text() + line)
    kernel_kit(place / "home/cache", host_mirror(), report=lambda *told: None)
    _owned([place / "home", place / "tmp"])
    (place / "home").chmod(0o700)
    yield Importer(place=place)
    shutil.rmtree(place)


def test_a_user_imports_a_disk_and_a_container_image(importer: Importer) -> None:
    raw = raw_disk(importer.place / "disk.raw")
    file = making.docker_archive(importer.place / "tiny.tar", layers())
    for path in (raw, file):
        path.chmod(0o644)
    importer.good("image", "import", str(raw), "--name", "disk", "--os", "none 1")
    words = ("--name", "tiny", "--size", "1G")
    importer.good("image", "import", f"docker-archive:{file}", *words)
    found = json.loads(importer.good("image", "list", "--json"))
    assert {each["name"]: each["os"] for each in found} == {"disk": "none 1", "tiny": "tiny 1"}
    for name in ("disk", "tiny"):
        importer.good("image", "verify", name)
        made = (importer.images / name / "disk.qcow2").stat()
        assert (made.st_uid, stat.S_IMODE(made.st_mode)) == (UID, 0o400)
    assert list((importer.place / "tmp").iterdir()) == []
    assert list((importer.images / ".work").iterdir()) == []
    assert importer.good("run", "--no-workdir", "tiny", "--", "id", "-u") == f"{UID}\n"
    # It is his, and he is nobody else.
    secret = importer.place / "secret.raw"
    raw.rename(secret)
    secret.chmod(0o600)
    done = importer.run("image", "import", str(secret), "--name", "stolen")
    assert done.returncode != 0
    assert b"Permission denied" in done.stderr
    for template in json.loads(importer.good("template", "list", "--json")):
        importer.good("template", "remove", template["key"])
