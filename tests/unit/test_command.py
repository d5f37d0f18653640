"""Child processes: an argument list, a time limit, an error that says what came back."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from mayfly.command import Finished, run
from mayfly.errors import Failed

PYTHON = sys.executable


def python(code: str) -> list[str]:
    return [PYTHON, "-I", "-S", "-c", code]


def test_the_result_has_everything() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    result = run(python(code), timeout_s=20, check=False)
    assert (result.code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert result.argv == tuple(python(code))


def test_input_environment_and_directory_reach_the_child(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.stdin.read(), os.environ['WORD'], os.getcwd())"
    result = run(python(code), timeout_s=20, stdin=b"in", env={"WORD": "x y"}, cwd=str(tmp_path))
    assert result.text().strip() == f"in x y {tmp_path}"


def test_no_shell_looks_at_the_arguments() -> None:
    words = ["$HOME; echo *", "a b", ""]
    code = "import sys; print(sys.argv[1:])"
    assert run([*python(code), *words], timeout_s=20).text().strip() == str(words)


def test_a_failed_child_is_an_error_with_its_last_words() -> None:
    code = "import sys; print('first\\nlast', file=sys.stderr); sys.exit(1)"
    with pytest.raises(Failed) as caught:
        run(python(code), timeout_s=20)
    assert caught.value.message.endswith("failed: last")
    assert PYTHON in caught.value.message


def test_a_child_that_failed_silently_is_told_by_its_status() -> None:
    with pytest.raises(Failed, match=r"exit status 7, nothing on standard error"):
        run(python("raise SystemExit(7)"), timeout_s=20)


def test_a_child_killed_by_a_signal_is_a_failure() -> None:
    with pytest.raises(Failed, match="exit status -9"):
        run(python("import os; os.kill(os.getpid(), 9)"), timeout_s=20)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(Failed, match=r"/nowhere/mke2fs.*No such file") as caught:
        run(["/nowhere/mke2fs"], timeout_s=20)
    assert "doctor" in caught.value.hint


@pytest.mark.parametrize("text", ["", "not a program"])
def test_a_program_that_cannot_be_executed_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tool"
    file.write_text(text)
    file.chmod(0o644)
    with pytest.raises(Failed, match=f"{file}"):
        run([str(file)], timeout_s=20)
    file.chmod(0o755)
    with pytest.raises(Failed, match=f"{file}"):
        run([str(file)], timeout_s=20)


def test_a_child_that_goes_on_is_ended_at_the_limit() -> None:
    begin = time.monotonic()
    with pytest.raises(Failed, match=r"did not end within 0\.2 s"):
        run(python("import time; time.sleep(600)"), timeout_s=0.2)
    assert time.monotonic() - begin < 20


def test_bytes_that_are_not_text_are_replaced() -> None:
    result = Finished(argv=("x",), code=1, stdout=b"a\xffb", stderr=b"one\n\xfe two \n\n")
    assert result.text() == "a\ufffdb"
    assert result.complaint() == "\ufffd two"
