"""The line of every key is found, however the file is written."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mayfly.tomllines import Path, find_lines, line_of

TEXT = '''\
# [policy] in a comment
top = 1
[policy]
endorsed = "optional"   # key = "not one"
"quoted key" = 1
'single "quote"' = 2
dotted . "inner" = 3
long = """
[not.a.table]
key = 1
""\\""" still
"""
array = [
  "[[a]]", # ]
  # [b]
  ["x", 'y]'],
]
after = true
literal = \'\'\'
x = 1\'\'\'
tricky = "a # \\" ["
empty = ""

[[policy.allow]]
who = ["*"]
  [policy.allow.limits]
  cpus = 1
[[policy.allow]]
who = [
  "user:a"
]
images = ["*"]
  [[policy.allow.part]]
  a = 1
  [[policy.allow.part]]
  a = 2
[ "other" . part ]
key = 5
'''

EXPECTED: dict[Path, int] = {
    ("top",): 2,
    ("policy",): 3,
    ("policy", "endorsed"): 4,
    ("policy", "quoted key"): 5,
    ("policy", 'single "quote"'): 6,
    ("policy", "dotted", "inner"): 7,
    ("policy", "long"): 8,
    ("policy", "array"): 13,
    ("policy", "after"): 18,
    ("policy", "literal"): 19,
    ("policy", "tricky"): 21,
    ("policy", "empty"): 22,
    ("policy", "allow", 0): 24,
    ("policy", "allow", 0, "who"): 25,
    ("policy", "allow", 0, "limits"): 26,
    ("policy", "allow", 0, "limits", "cpus"): 27,
    ("policy", "allow", 1): 28,
    ("policy", "allow", 1, "who"): 29,
    ("policy", "allow", 1, "images"): 32,
    ("policy", "allow", 1, "part", 0): 33,
    ("policy", "allow", 1, "part", 0, "a"): 34,
    ("policy", "allow", 1, "part", 1): 35,
    ("policy", "allow", 1, "part", 1, "a"): 36,
    ("other", "part"): 37,
    ("other", "part", "key"): 38,
}


def test_every_key_is_found_and_nothing_else() -> None:
    assert tomllib.loads(TEXT)
    assert find_lines(TEXT) == EXPECTED


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("policy", "allow", 1, "who"), 29),
        (("policy", "allow", 1, "root"), 28),
        (("policy", "allow", 9, "root"), 3),
        (("policy",), 3),
        (("nothing",), 1),
    ],
)
def test_what_is_not_written_is_at_the_table_around_it(path: Path, line: int) -> None:
    assert line_of(find_lines(TEXT), path) == line


def test_a_table_without_a_header_is_where_its_first_part_is() -> None:
    assert line_of(find_lines("\n\n[[policy.allow]]\nwho = 1\n"), ("policy",)) == 3


# --- any file ------------------------------------------------------------------------------------

keys = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,5}", fullmatch=True),
    st.text("ab\"\\ .=[]#'", min_size=1, max_size=4),
)
letters = "ab \"\\'[]{}#=,\n"
values = st.recursive(
    st.one_of(st.text(letters, max_size=12), st.integers(), st.booleans()),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
tables = st.lists(
    st.tuples(keys, st.booleans(), st.dictionaries(keys, values, max_size=3)), max_size=4
)


def quoted(text: str) -> str:
    marked = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{marked}"'


def written(value: Any, *, spread: bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        if "\n" in value and spread:
            body = value.replace("\\", "\\\\").replace('"', '\\"')
            return f'"""{body}"""' if not value.startswith("\n") else quoted(value)
        return quoted(value)
    between = ",\n  # ]\n" if spread else ", "
    return f"[{between.join(written(each, spread=spread) for each in value)}]"


@given(tables, st.booleans())
@settings(max_examples=40)
def test_the_keys_of_any_file_are_found(
    parts: list[tuple[str, bool, dict[str, Any]]], spread: bool
) -> None:
    text, expected, seen = "", {}, dict[str, bool]()
    counts: dict[str, int] = {}
    for name, many, table in parts:
        if seen.setdefault(name, many) != many or (not many and name in counts):
            continue
        counts[name] = counts.get(name, -1) + 1
        prefix: Path = (name, counts[name]) if many else (name,)
        expected[prefix] = text.count("\n") + 1
        text += f"[[{quoted(name)}]]\n" if many else f"[{quoted(name)}] # x = [\n"
        for key, value in table.items():
            expected[(*prefix, key)] = text.count("\n") + 1
            text += f"{quoted(key)} = {written(value, spread=spread)} # \" ] '''\n"
    assert isinstance(tomllib.loads(text), dict)
    assert find_lines(text) == expected


@given(st.text(letters + "x.\r"))
def test_any_text_is_looked_through(text: str) -> None:
    assert all(1 <= line <= text.count("\n") + 1 for line in find_lines(text).values())
