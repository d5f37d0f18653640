"""A job's script on its way into the machine; here it is run by the host's own shell."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mayfly.batch.script import LONGEST, carry
from mayfly.errors import Failed, Invalid

HORROR = b"""#!/bin/sh
# 'quotes' "and" `ticks` $(and) \\ %s %d \xff\xfe bytes
printf '%s|' "$(basename "$0")" "$@"
echo "$MAYFLY_SCRIPT_0"
umask


"""


def run(script: Path, *words: str, umask: int = 0o027) -> subprocess.CompletedProcess[bytes]:
    carried = carry(script, words, umask=umask)
    env = {**os.environ, **carried.env}
    return subprocess.run(carried.argv, env=env, capture_output=True, check=False)


def test_it_is_run_by_its_name_with_its_words(tmp_path: Path) -> None:
    script = tmp_path / "slurm_script"
    script.write_bytes(HORROR)
    done = run(script, "a b", "'", '"', "", "$HOME", "-n")
    assert done.stdout == b"slurm_script|a b|'|\"||$HOME|-n|\n0027\n", done.stderr


def test_it_arrives_byte_for_byte(tmp_path: Path) -> None:
    script = tmp_path / "job"
    script.write_bytes(
        b'#!/bin/sh\ncat "$0"\nexit 3\n# \xff\x80\n\n\n' + b"# 0123456789\n" * 20_000
    )
    done = run(script)
    assert (done.returncode, done.stdout == script.read_bytes()) == (3, True)


def test_an_empty_one_is_run_too(tmp_path: Path) -> None:
    script = tmp_path / "job"
    script.touch()
    assert len(carry(script, (), umask=0).env) == 1


def test_what_cannot_be_carried_is_refused(tmp_path: Path) -> None:
    script = tmp_path / "job"
    with pytest.raises(Failed, match="cannot read"):
        carry(script, (), umask=0)
    script.write_bytes(b"\x7fELF\0")
    with pytest.raises(Invalid, match="no text"):
        carry(script, (), umask=0)
    script.write_bytes(b"#" * (LONGEST + 1))
    with pytest.raises(Invalid, match="longer than"):
        carry(script, (), umask=0)
