"""The rules of shape, as functions that give the faults they find in parsed source files.

``test_shape.py`` runs them on the repository, and on planted faults.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

MODULE_LINES = 400
BODY_LINES = 40
PARAMETERS = 6
PROTOCOL_METHODS = 7
FORBIDDEN_NAMES = frozenset(
    {"base", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
)
SHELL_CALLS = frozenset({"getoutput", "getstatusoutput", "popen", "system"})
CHILD_CALLS = frozenset({"Popen", "call", "check_call", "check_output", "run"})
CLICK_DECORATORS = frozenset({"argument", "command", "group", "option", "pass_context"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Fault(NamedTuple):
    """A place that breaks a rule."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One parsed file; ``module`` is its dotted name, counted from the folder that was read."""

    path: str
    module: str
    package: bool
    lines: int
    tree: ast.Module

    def functions(self) -> Iterator[Function]:
        """Give every function, methods and nested ones included."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))


class Import(NamedTuple):
    """One imported module, or name of a module, and where."""

    source: Source
    line: int
    target: str


def read(folder: Path) -> list[Source]:
    """Parse every Python file beneath a folder."""
    return [_parse(file, folder) for file in sorted(folder.rglob("*.py"))]


def _parse(file: Path, folder: Path) -> Source:
    text = file.read_text(encoding="utf-8")
    parts = file.relative_to(folder).with_suffix("").parts
    package = parts[-1] == "__init__"
    return Source(
        path=str(file.relative_to(folder.parent)),
        module=".".join(parts[:-1] if package else parts),
        package=package,
        lines=len(text.splitlines()),
        tree=ast.parse(text, str(file)),
    )


# --- sizes and names -----------------------------------------------------------------------------


def size_faults(source: Source) -> Iterator[Fault]:
    """Find modules, functions and protocols that have grown too large, and empty names."""
    if source.lines > MODULE_LINES:
        yield Fault(source.path, 1, f"{source.lines} lines; at most {MODULE_LINES}")
    for part in set(source.module.split(".")) & FORBIDDEN_NAMES:
        yield Fault(source.path, 1, f"'{part}' says nothing: name it for what it holds")
    for function in source.functions():
        if (count := _body_lines(function)) > BODY_LINES:
            text = f"{function.name} has a body of {count} lines; at most {BODY_LINES}"
            yield Fault(source.path, function.lineno, text)
        if (count := _parameters(function)) > PARAMETERS:
            text = f"{function.name} has {count} parameters; at most {PARAMETERS}"
            yield Fault(source.path, function.lineno, text)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and _is_protocol(node):
            count = sum(isinstance(item, Function) for item in node.body)
            if count > PROTOCOL_METHODS:
                text = f"protocol {node.name} has {count} methods; at most {PROTOCOL_METHODS}"
                yield Fault(source.path, node.lineno, text)


def _body_lines(function: Function) -> int:
    documented = ast.get_docstring(function, clean=False) is not None
    body = function.body[1:] if documented else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _parameters(function: Function) -> int:
    """Count parameters; the options of a command are parameters of its callback, and are free."""
    names = {_dotted(decorator).rpartition(".")[2] for decorator in function.decorator_list}
    if names & CLICK_DECORATORS:
        return 0
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    if named and named[0].arg in {"self", "cls"}:
        del named[0]
    return len(named) + (given.vararg is not None) + (given.kwarg is not None)


def _is_protocol(node: ast.ClassDef) -> bool:
    return any(_dotted(base).rpartition(".")[2] == "Protocol" for base in node.bases)


def _dotted(node: ast.expr) -> str:
    """Give ``a.b.c`` of a name, an attribute, a call or a subscript of one; else nothing."""
    if isinstance(node, ast.Call):
        return _dotted(node.func)
    if isinstance(node, ast.Subscript):
        return _dotted(node.value)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


# --- habits --------------------------------------------------------------------------------------


def shell_faults(source: Source) -> Iterator[Fault]:
    """Find calls that hand a string to a shell."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        module, _, name = _dotted(node.func).rpartition(".")
        direct = name in SHELL_CALLS and module in {"os", "subprocess"}
        if direct or (name in CHILD_CALLS and any(map(_asks_for_shell, node.keywords))):
            yield Fault(source.path, node.lineno, "a shell string: give an argument list")


def _asks_for_shell(keyword: ast.keyword) -> bool:
    refused = isinstance(keyword.value, ast.Constant) and not keyword.value.value
    return keyword.arg == "shell" and not refused


def handler_faults(source: Source, allowed: Iterable[str] = ()) -> Iterator[Fault]:
    """Find handlers that swallow every error, outside the modules where that is their task."""
    if source.module in allowed:
        return
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        if any(one is None or _dotted(one) == "Exception" for one in caught):
            yield Fault(source.path, node.lineno, "catches every error: name the ones you expect")


def test_faults(source: Source) -> Iterator[Fault]:
    """Find tests that would pass whatever happens."""
    if not source.module.rpartition(".")[2].startswith("test_"):
        return
    for function in source.functions():
        if function.name.startswith("test_") and not any(map(_asserts, ast.walk(function))):
            yield Fault(source.path, function.lineno, f"{function.name} asserts nothing")


def _asserts(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        name = _dotted(node.func)
        last = name.rpartition(".")[2]
        return name in {"pytest.raises", "pytest.warns"} or last.startswith(("assert_", "check_"))
    return isinstance(node, ast.Assert)


# --- imports -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a part of the package may import."""

    imports: frozenset[str]
    """Parts of the package, with all that is in them."""
    alone: frozenset[str] = frozenset()
    """Parts of the package, without what is in them."""
    foreign: frozenset[str] = frozenset()
    """Packages from outside; the standard library is free."""


def imports(source: Source) -> Iterator[Import]:
    """Give every import of a file, those inside functions included."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (Import(source, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            for alias in node.names:
                yield Import(source, node.lineno, f"{start}.{alias.name}")


def direction_faults(
    sources: Sequence[Source], package: str, rooms: Mapping[str, Room]
) -> Iterator[Fault]:
    """Find imports that do not point inwards; a room is a module or folder of the package."""
    for source in sources:
        parts = source.module.split(".")
        room = parts[1] if len(parts) > 1 else ""
        if room not in rooms:
            yield Fault(source.path, 1, f"no rule says what '{room}' may import")
            continue
        for item in imports(source):
            reason = _direction_fault(item.target, package, room, rooms[room])
            if reason:
                yield Fault(source.path, item.line, reason)


def _direction_fault(target: str, package: str, name: str, room: Room) -> str:
    if target.startswith("."):
        return "a relative import: write the whole name"
    top, *rest = target.split(".")
    if top != package:
        foreign = top not in sys.stdlib_module_names and top not in room.foreign
        return f"'{name}' may not import {top}" if foreign else ""
    inside = ".".join(rest)
    allowed = {name, *room.imports} - {""}
    if inside in room.alone or any(
        inside == one or inside.startswith(f"{one}.") for one in allowed
    ):
        return ""
    if len(rest) == 1 and rest[0].startswith("__"):
        return ""
    return f"'{name or package}' may not import {target}"


def cycles(sources: Sequence[Source]) -> list[list[str]]:
    """Find the circles of imports, each as the modules on it."""
    modules = {source.module for source in sources}
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for source in sources:
        for item in imports(source):
            target = item.target
            while target and target not in modules:
                target = target.rpartition(".")[0]
            if target and target != source.module:
                graph[source.module].add(target)
    return [path for module in sorted(modules) if (path := _way_back(graph, module))]


def _way_back(graph: Mapping[str, set[str]], start: str) -> list[str]:
    """Give a way from a module to itself, if it is the first by name on that circle."""
    ways = [[start]]
    seen = set()
    for way in ways:
        for module in sorted(graph[way[-1]]):
            if module == start:
                return [*way, start]
            if module > start and module not in seen:
                seen.add(module)
                ways.append([*way, module])
    return []
