"""The settings of the host service."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest

from mayfly.config import UID_LEAST, UID_MOST, Settings
from mayfly.errors import Invalid, Missing
from mayfly.host.settings import (
    HOST_CONFIG,
    Amounts,
    Disk,
    HostSettings,
    Kept,
    Limits,
    Logs,
    Requests,
    Sharing,
    Standby,
    check_uids_apart,
    load_host_settings,
)
from mayfly.units import MIB, parse_duration, parse_size

PAGE = Path(__file__).parents[3] / "docs/reference/host-settings.md"


def loaded(folder: Path, text: str) -> HostSettings:
    file = folder / "host.toml"
    file.write_text(text)
    return load_host_settings(file)


def refused(folder: Path, text: str) -> Invalid:
    with pytest.raises(Invalid) as caught:
        loaded(folder, text)
    assert str(folder / "host.toml") in caught.value.message
    return caught.value


def test_without_a_file_everything_is_at_its_default() -> None:
    assert load_host_settings(None) == HostSettings()


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert loaded(tmp_path, "") == HostSettings()
    assert loaded(tmp_path, "[limits]\n[limits.user]\n[kept]\n[logs]\n[disk]\n") == HostSettings()


EVERYTHING = """
socket = "/run/m.sock"
state = "/srv/mayfly"
requests = "listed"
users = ["ada", "bob"]
groups = ["physics"]
allow_emulation = true
uid_first = 100000
overcommit = 1.5
reserve_memory = "2G"
sharing = "none"
admin_access = true
collect = "/usr/local/sbin/collect"
metrics_file = "/var/lib/node_exporter/mayfly.prom"

[limits]
machines = 40
cpus = 64
memory = "100G"
disk = "1T"
waiting = 7
line_user = 3

[limits.user]
machines = 4
cpus = 8
memory = "16G"
disk = "100G"

[[standby]]
image = "debian-12"
cpus = 2
memory = "1G"
least = 0
most = 9
queues = ["short", "long"]

[[standby]]
image = "alma-9"

[kept]
machines = 3
disk = "5G"
for = "2h"
user_machines = 2

[logs]
size = "10M"
for = "3d"
machine = "100K"

[disk]
room = "4G"
"""


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    assert loaded(tmp_path, EVERYTHING) == HostSettings(
        socket=Path("/run/m.sock"),
        state=Path("/srv/mayfly"),
        requests=Requests.LISTED,
        users=("ada", "bob"),
        groups=("physics",),
        allow_emulation=True,
        uid_first=100_000,
        overcommit=1.5,
        reserve_memory_mib=2048,
        sharing=Sharing.NONE,
        admin_access=True,
        collect=Path("/usr/local/sbin/collect"),
        metrics_file=Path("/var/lib/node_exporter/mayfly.prom"),
        limits=Limits(
            machines=40,
            cpus=64,
            memory_mib=100 << 10,
            disk_mib=1 << 20,
            waiting=7,
            line_user=3,
            user=Amounts(machines=4, cpus=8, memory_mib=16 << 10, disk_mib=100 << 10),
        ),
        standby=(
            Standby(
                image="debian-12",
                cpus=2,
                memory_mib=1024,
                least=0,
                most=9,
                queues=("short", "long"),
            ),
            Standby(image="alma-9"),
        ),
        kept=Kept(machines=3, disk_mib=5120, for_s=7200, user_machines=2),
        logs=Logs(size_bytes=10 * MIB, for_s=3 * 86_400, machine_bytes=100 << 10),
        disk=Disk(room_mib=4096),
    )


def test_a_limit_may_be_lifted(tmp_path: Path) -> None:
    settings = loaded(tmp_path, '[limits]\nmachines = 0\nmemory = "0"\n')
    assert (settings.limits.machines, settings.limits.memory_mib) == (0, 0)


@pytest.mark.parametrize("text", ["1", "1.0", "2.5", "100"])
def test_overcommit_may_be_a_whole_number(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, f"overcommit = {text}").overcommit == float(text)


WRONG = [
    ("colour = 1", "'colour'"),
    ("reserve_memory_mib = 5", "'reserve_memory_mib'"),
    ("requests = 'everyone'", "'requests' must be one of anyone, listed, registered"),
    ("requests = 1", "'requests' must be one of"),
    ("sharing = 'all'", "'sharing' must be one of host, none"),
    ("socket = 'host.sock'", "'socket' must be a path"),
    ("socket = 5", "'socket' must be text"),
    (f"socket = '/{'a' * 107}'", "'socket' must have at most 107"),
    ("state = ''", "'state' must be a path"),
    ("collect = 'collect.sh'", "'collect' must be a path"),
    ("metrics_file = true", "'metrics_file' must be text"),
    ("trust_update = 300", "'trust_update'"),
    ("trust_update = '0s'", "'trust_update' must be longer than nothing"),
    ("allow_emulation = 1", "'allow_emulation' must be true or false"),
    ("admin_access = 'yes'", "'admin_access' must be true or false"),
    (f"uid_first = {UID_LEAST - 1}", "'uid_first' must be from"),
    (f"uid_first = {UID_MOST + 1}", "'uid_first' must be from"),
    ("uid_first = '100000'", "'uid_first' must be a whole number"),
    ("overcommit = 0.99", "'overcommit' must be from 1.0 to 100.0"),
    ("overcommit = inf", "'overcommit' must be from 1.0 to 100.0"),
    ("overcommit = nan", "'overcommit' must be from 1.0 to 100.0"),
    ("overcommit = true", "'overcommit' must be a number"),
    ("reserve_memory = 5", "'reserve_memory' must be a size"),
    ("reserve_memory = 'much'", "'reserve_memory': 'much' is not a size"),
    ("reserve_memory = '512'", "'reserve_memory' must be 1M or more"),
    ("users = 'ada'", "'users' must be a list of names"),
    ("users = [1]", "'users' must be a list of names"),
    ("requests = 'listed'\ngroups = ['']", "'groups' must be a list of names"),
    ("limits = 5", "'limits' must be a table [limits]"),
    ("[limits]\nmachines = -1", "[limits]: 'machines' must be from 0"),
    ("[limits]\nmachines = 4294967296", "[limits]: 'machines' must be from 0"),
    ("[limits]\nmachines = true", "[limits]: 'machines' must be a whole number"),
    ("[limits]\ncpus = 1.5", "[limits]: 'cpus' must be a whole number"),
    ("[limits]\nmemory = 5", "[limits]: 'memory' must be a size"),
    ("[limits]\nmemory_mib = 5", "[limits]: no such setting 'memory_mib'"),
    ("[limits]\nuser = 5", "[limits]: 'user' must be a table [user]"),
    ("[limits.user]\nmachines = -1", "[limits.user]: 'machines' must be from 0"),
    ("[limits.user]\nwaiting = 1", "[limits.user]: no such setting 'waiting'"),
    ("standby = 5", "'standby' must be tables [[standby]]"),
    ("[standby]\nimage = 'a'", "'standby' must be tables [[standby]]"),
    ("[[standby]]\ncpus = 1", "[[standby]] number 1: 'image' must be given"),
    ("[[standby]]\nimage = ''", "[[standby]] number 1: 'image' must name an image"),
    ("[[standby]]\nimage = 'a'\n[[standby]]\nimage = 5", "[[standby]] number 2: 'image' must"),
    ("[[standby]]\nimage = 'a'\ncpus = 0", "[[standby]] number 1: 'cpus' must be from 1"),
    ("[[standby]]\nimage = 'a'\nmemory = '0'", "[[standby]] number 1: 'memory' must be 1M"),
    ("[[standby]]\nimage = 'a'\nleast = -1", "[[standby]] number 1: 'least' must be from 0"),
    ("[[standby]]\nimage = 'a'\nmost = 0", "[[standby]] number 1: 'most' must be from 1"),
    ("[[standby]]\nimage = 'a'\nleast = 5", "'most' (4) must not be below 'least' (5)"),
    ("[[standby]]\nimage = 'a'\n[[standby]]\nimage = 'a'", "'a' in one size twice"),
    ("[kept]\nfor = 5", "[kept]: 'for' must be a duration"),
    ("[kept]\nfor = 'long'", "[kept]: 'for': 'long' is not a duration"),
    ("[kept]\nfor = '0s'", "[kept]: 'for' must be longer than nothing"),
    ("[logs]\nsize = 'big'", "[logs]: 'size': 'big' is not a size"),
    ("[logs]\nmachine = -1", "[logs]: 'machine' must be a size"),
    ("[disk]\nroom = '0'", "[disk]: 'room' must be 1M or more"),
    ("requests = 'listed'", "name nobody"),
    ("users = ['ada']", "'users' and 'groups' have no effect"),
    ("requests = 'registered'\ngroups = ['a']", "'users' and 'groups' have no effect"),
]


@pytest.mark.parametrize(("text", "told"), WRONG)
def test_a_wrong_value_names_file_and_key(tmp_path: Path, text: str, told: str) -> None:
    assert told in refused(tmp_path, text).message


def test_an_unknown_key_gets_the_list_of_known_ones(tmp_path: Path) -> None:
    assert "reserve_memory, sharing" in refused(tmp_path, "colour = 1").hint
    assert refused(tmp_path, "[limits.user]\na = 1").hint == "known: machines, cpus, memory, disk"


def test_one_image_may_stand_by_in_several_sizes(tmp_path: Path) -> None:
    text = "[[standby]]\nimage = 'a'\n[[standby]]\nimage = 'a'\ncpus = 2"
    assert [each.cpus for each in loaded(tmp_path, text).standby] == [1, 2]


def test_what_is_no_toml_is_refused(tmp_path: Path) -> None:
    assert "TOML" in refused(tmp_path, "cpus: 2").message
    (tmp_path / "host.toml").write_bytes(b"state = '\xff'")
    with pytest.raises(Invalid, match="TOML"):
        load_host_settings(tmp_path / "host.toml")


def test_a_file_that_is_not_there_or_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=f"there is no {tmp_path}/host.toml"):
        load_host_settings(tmp_path / "host.toml")
    with pytest.raises(Invalid, match=f"cannot read {tmp_path}"):
        load_host_settings(tmp_path)


def test_machines_of_the_service_and_of_root_get_no_common_uid() -> None:
    host, settings = HostSettings(), Settings()
    check_uids_apart(host, settings)
    check_uids_apart(replace(host, uid_first=settings.uid_first - 65_536), settings)
    for apart in (-65_535, 0, 65_535):
        with pytest.raises(Invalid, match="less than 65536 apart"):
            check_uids_apart(replace(host, uid_first=settings.uid_first + apart), settings)


# --- the page ------------------------------------------------------------------------------------

TABLES = {
    "": HostSettings,
    "limits": Limits,
    "limits.user": Amounts,
    "standby": Standby,
    "kept": Kept,
    "logs": Logs,
    "disk": Disk,
}


def documented() -> dict[str, dict[str, str]]:
    """Give the defaults on the page, by table and key."""
    found: dict[str, dict[str, str]] = {table: {} for table in TABLES}
    table = ""
    for row in PAGE.read_text().splitlines():
        if heading := re.match(r"## `\[+([a-z.]+)\]+`", row):
            table = heading[1]
        elif line := re.match(r"\| `([a-z_]+)` \| (?:`([^`]*)`|none|required) \|", row):
            found[table][line[1]] = line[2] or ""
    return found


def shown_as(text: str, name: str, default: Any) -> bool:
    if default is None or default is MISSING:
        return text == ""
    value = json.loads(text)
    if name.endswith(("_mib", "_bytes")):
        return bool(parse_size(str(value)) == default * (MIB if name.endswith("_mib") else 1))
    if name.endswith("_s"):
        return bool(parse_duration(str(value)) == default)
    if isinstance(default, tuple):
        return tuple(value) == default
    return bool(value == (str(default) if isinstance(default, Path) else default))


@pytest.mark.parametrize("table", TABLES)
def test_the_page_has_a_line_for_each_setting_with_its_default(table: str) -> None:
    rows = documented()[table]
    plain = [item for item in fields(TABLES[table]) if item.name not in (*TABLES, "user")]
    keys = {re.sub("_(mib|bytes|s)$", "", item.name): item for item in plain}
    assert rows.keys() == keys.keys()
    for key, item in keys.items():
        assert shown_as(rows[key], item.name, item.default), f"{table}.{key}"


def test_the_example_on_the_page_is_right(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    assert loaded(tmp_path, example[1]) != HostSettings()


def test_the_page_names_the_file() -> None:
    assert f"`{HOST_CONFIG}`" in PAGE.read_text()
