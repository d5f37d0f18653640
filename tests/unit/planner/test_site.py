"""Reading ``[pool]`` and ``[provider.NAME]``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mayfly.errors import Invalid, Missing
from mayfly.planner import site as reader
from mayfly.planner.site import parse_site, read_site

PAGE = (Path(__file__).parents[3] / "docs/reference/pools.md").read_text()
GOOD = """\
[pool]
patience = "5m"
headroom = 0.1
keep = "10m"
budget = 500.0
window = "7d"

[provider.ours]
cpus = 512

[[provider.ours.offer]]
name = "node"
cpus = 8
memory = "32G"
price_hour = 0.08

[[provider.ours.offer]]
name = "half"
cpus = 4
price_hour = 0
boot = "1m"
count = 3
"""
OFFER = '[[provider.p.offer]]\nname = "n"\ncpus = 1\nprice_hour = 1\n'


def test_a_site_is_read() -> None:
    site = parse_site(GOOD, "site.toml")
    assert (site.patience_s, site.budget, site.window_s) == (300.0, 500.0, 7 * 86_400.0)
    assert (site.rules.headroom_share, site.rules.keep_s) == (0.1, 600.0)
    assert site.quotas == {"ours": 512}
    node, half = site.offers
    assert (node.name, node.provider, node.price_hour) == ("ours/node", "ours", 0.08)
    assert (node.shape.cpus, node.shape.memory_mib) == (8, 32 * 1024)
    assert (half.count, half.boot_s, half.price_hour) == (3, 60.0, 0.0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no provider is named"),
        ("[provider]\n", "no provider is named"),
        ("provider = 3\n", "no provider is named"),
        ("[provider.p]\n", ":1: 'provider.p' has no offer"),
        ("[provider.p]\noffer = 1\n", ":2: 'provider.p.offer' must be tables"),
        ("[provider.p]\noffer = [1]\n", ":2: 'provider.p.offer' must be a table"),
        ('[[provider.p.offer]]\nname = "n"\ncpus = 1\n', "lacks 'price_hour'"),
        (OFFER.replace("= 1\n", "= 0\n", 1), ":3: 'provider.p.offer.cpus' must be from 1"),
        (OFFER.replace("price_hour = 1", "price_hour = -1"), "a price of -1.0 is no price"),
        (OFFER.replace("price_hour = 1", "price_hour = nan"), "no price"),
        (OFFER.replace("price_hour = 1", "price_hour = 1e300"), "no price"),
        (OFFER.replace("price_hour = 1", "price_hour = 5000"), "taken for a mistake"),
        (OFFER.replace("price_hour = 1", "price_hour = true"), "must be a number, not True"),
        (OFFER.replace('"n"', '"a\\u001b"'), "must be text"),
        (OFFER + "boot = 5\n", ":5: 'provider.p.offer.boot' must be a duration"),
        (OFFER + 'boot = "soon"\n', "is no duration"),
        (OFFER + 'billing_step = "0s"\n', "must be longer than nothing"),
        (OFFER + 'memory = "much"\n', "is no size"),
        (OFFER + "interruptions_hour = -1\n", "must not be negative"),
        (OFFER + "colour = 1\n", ":5: 'provider.p.offer.colour' is no key here"),
        (OFFER + OFFER, "two offers are called 'p/n'"),
        (OFFER + "[pool]\nkeep = 3\n", ":6: 'pool.keep' must be a duration"),
        (OFFER + "[pool]\nheadroom = 90\n", "must be a share"),
        (OFFER + "[pool]\nstart_most = -1\n", "must be a whole number"),
        (OFFER + "[pool]\ncheap_first = 1\n", "must be true or false"),
        (OFFER + "[pool]\nbudget = -1\n", "must not be negative"),
        ("pool = 1\n" + OFFER, "'pool' must be a table"),
        ("[pool", "is not TOML"),
        ("x = " + "[" * 5000, "is not TOML"),
        ("#" * 1_100_000, "longer than any settings"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=re.escape(said)):
        parse_site(text, "site.toml")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        read_site(tmp_path / "nothing")
    with pytest.raises(Invalid, match="cannot read"):
        read_site(tmp_path)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match="is not TOML"):
        read_site(binary)


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("[pool]", {**reader._RULES, **reader._SITE}),
        ("[provider.NAME]", {key: 0 for key in reader._PROVIDER if key != "offer"}),
        ("[[provider.NAME.offer]]", reader._OFFER),
    ],
)
def test_the_page_has_every_key(section: str, keys: dict[str, object]) -> None:
    part = PAGE.split(f"## `{section}`\n")[1].split("| key |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", part, re.MULTILINE)) == set(keys)
