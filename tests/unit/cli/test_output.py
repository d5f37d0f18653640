"""What commands print for people and for scripts."""

from __future__ import annotations

import io
import json
import sys

import pytest

from mayfly.cli import output
from mayfly.cli.output import Progress, print_json, print_table


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """Give what a terminal would show: a carriage return and ESC [ K clear the line."""
        return [line.split("\r\033[K")[-1] for line in self.getvalue().split("\n")]


def a_file(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(output, "_columns", lambda: 40)
    return stream


def test_elsewhere_each_step_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    file = a_file(monkeypatch)
    progress = Progress()
    for text in ("booting (1 s)", "booting (2 s)", "booting", "saving", "booting (3 s)"):
        progress(text)
    progress.clear()
    assert file.getvalue() == "mayfly: booting\nmayfly: saving\nmayfly: booting\n"


def test_a_terminal_has_one_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    progress = Progress()
    for text in ("booting (1 s)", "booting (2 s)", "saving"):
        progress(text)
        assert terminal.screen() == [f"mayfly: {text}"]
    progress.clear()
    assert terminal.screen() == [""]


def test_a_live_line_does_not_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    Progress()("x" * 200)
    (line,) = terminal.screen()
    assert len(line) < 40
    assert line.startswith("mayfly: xxx")


def test_a_note_stays_and_takes_the_live_line_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    progress = Progress()
    progress("booting")
    progress.note("machines are emulated")
    progress("saving")
    assert terminal.screen() == ["mayfly: machines are emulated", "mayfly: saving"]


def test_clearing_nothing_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = a_terminal(monkeypatch)
    progress = Progress()
    progress.clear()
    assert terminal.getvalue() == ""
    progress("x")
    progress.clear()
    length = len(terminal.getvalue())
    progress.clear()
    assert len(terminal.getvalue()) == length


def test_a_warning_is_heard_also_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(quiet=True).warn("a file\x1b[2J was kept")
    assert capsys.readouterr().err == "mayfly: a file?[2J was kept\n"


@pytest.mark.parametrize("live", [True, False])
def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch, live: bool) -> None:
    stream = Terminal() if live else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress(quiet=True)
    progress("booting")
    progress.note("something")
    progress.clear()
    assert stream.getvalue() == ""


def test_nothing_of_it_goes_to_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = a_file(monkeypatch)
    progress = Progress()
    progress("booting")
    progress.note("something")
    assert capsys.readouterr().out == ""
    assert file.getvalue().count("\n") == 2


def test_a_table_has_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["ID", "IMAGE"], [["7c2kq9xv", "debian-12"], ["x", ""]])
    assert capsys.readouterr().out.split("\n") == [
        "ID        IMAGE",
        "7c2kq9xv  debian-12",
        "x",
        "",
    ]


def test_a_table_without_rows_is_its_head(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["ID", "IMAGE"], [])
    assert capsys.readouterr().out == "ID  IMAGE\n"


@pytest.mark.parametrize("row", [["only one"], ["one", "two", "three"]])
def test_a_row_of_another_length_is_a_fault(row: list[str]) -> None:
    with pytest.raises((ValueError, IndexError)):
        print_table(["ID", "IMAGE"], [row])


def test_json_can_be_read_again(capsys: pytest.CaptureFixture[str]) -> None:
    value = [{"b": 1, "a": None, "text": "\u00e9\udcff\n"}]
    print_json(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert printed.index('"a"') < printed.index('"b"')
    assert printed.endswith("\n")
