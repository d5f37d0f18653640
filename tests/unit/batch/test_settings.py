"""The site's settings for jobs in machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from mayfly.batch.settings import BatchSettings, load_batch_settings
from mayfly.errors import Invalid
from mayfly.model import ShareDir

REFERENCE = Path(__file__).parents[3] / "docs/reference/batch.md"


def test_all_of_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "batch.toml"
    file.write_text(
        'enabled = false\nlive = ["/home", "/software:ro"]\nsocket = "/run/x.sock"\ntries = 0\n'
    )
    assert load_batch_settings(file) == BatchSettings(
        enabled=False,
        live=(ShareDir(path=Path("/home")), ShareDir(path=Path("/software"), read_only=True)),
        socket=Path("/run/x.sock"),
        tries=0,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("enabled = 1", "'enabled' must be true or false"),
        ('live = "/home"', "'live' must be a list"),
        ('live = ["home"]', "'live' must be a path"),
        ('live = ["/a\\u0000"]', "'live' must be a path"),
        ("tries = -1", "'tries' must be from 0"),
        ("tries = true", "'tries' must be from 0"),
        ("colour = 1", "no such setting 'colour'"),
        ("live", "is not TOML"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "batch.toml"
    file.write_text(text)
    with pytest.raises(Invalid, match=words) as caught:
        load_batch_settings(file)
    assert str(file) in caught.value.message


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot read"):
        load_batch_settings(tmp_path / "none.toml")


def test_each_setting_has_a_line_in_the_reference() -> None:
    text = REFERENCE.read_text()
    assert [name for name in BatchSettings.__slots__ if f"| `{name}` |" not in text] == []
