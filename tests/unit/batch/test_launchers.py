"""The programs that a batch system executes, and the code that they start from."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mayfly.batch.launchers import compile_code


def test_what_users_run_is_compiled_beforehand(tmp_path: Path) -> None:
    module = tmp_path / "mayfly/batch/starter.py"
    module.parent.mkdir(parents=True)
    module.write_text("ANSWER = 42\n")
    (tmp_path / "mayfly/broken.py").write_text("def (\n")
    compile_code(tmp_path)
    compiled = Path(importlib.util.cache_from_source(str(module)))
    assert compiled.exists()
    before = compiled.stat().st_mtime_ns
    compile_code(tmp_path)
    assert compiled.stat().st_mtime_ns == before
