"""Whether somebody may have a machine: lists and a policy, read when they have changed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mayfly.config import Paths
from mayfly.errors import Denied, Invalid, Missing, Untrusted
from mayfly.host.permission import Gate, Permit, facts_of, gate_of, person_of
from mayfly.images.catalogue import Catalogue
from mayfly.images.cosign.keys import RegistryKey, Signed
from mayfly.images.lists.store import TrustStore
from mayfly.model import Account, Group, Image, NetworkMode
from mayfly.policy.model import Ask, Origin, Trust, Wish
from mayfly.policy.people import Person
from tests.unit.host.services import add_image
from tests.unit.host.trusting import ALL, EVERYTHING, image_in, take_back, vouch, write_policy

ADA = Person(user="ada", groups=("physics",))
OPEN = NetworkMode.OPEN


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name in ("debian-12", "el9"):
        add_image(tmp_path / "images", name)
    return tmp_path / "images"


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(policy_file=tmp_path / "policy.toml", site_trust=tmp_path / "trust")


def now() -> datetime:
    return datetime.now(UTC)


def wish(image: str = "debian-12", **changes: object) -> Wish:
    return replace(Wish(ask=Ask.IMAGE, image=image), **changes)  # type: ignore[arg-type]


def ask(gate: Gate, images: Path, wanted: Wish | None = None, person: Person = ADA) -> Permit:
    here = Catalogue(own=images, dirs=(images,))
    return gate.permit(person, wanted or wish(), here, now())


def refusal(gate: Gate, images: Path, wanted: Wish | None = None) -> str:
    with pytest.raises((Untrusted, Denied)) as caught:
        ask(gate, images, wanted)
    return str(caught.value.message)


# --- nothing is said -----------------------------------------------------------------------------


def test_where_nothing_is_said_all_is_as_it_was(gate: Gate, images: Path) -> None:
    given = ask(gate, images, wish(network=OPEN, root=True, shares=True, cpus=99))
    assert (given.network, given.may_root, given.notes) == (OPEN, True, ())


def test_an_image_that_is_not_here_is_missing(gate: Gate, images: Path) -> None:
    with pytest.raises(Missing):
        ask(gate, images, wish("nosuch"))


# --- lists ---------------------------------------------------------------------------------------


def test_without_a_policy_only_what_was_taken_back_is_refused(gate: Gate, images: Path) -> None:
    image = image_in(images)
    take_back(gate.site_trust, image)
    assert "a hole (rule 'image-revoked'" in refusal(gate, images)
    assert ask(gate, images, wish("el9")).may_root


def test_a_policy_wants_a_list_and_its_line_is_named(gate: Gate, images: Path) -> None:
    write_policy(gate.policy_file, ALL)
    said = refusal(gate, images)
    assert "rule 'unendorsed'" in said
    assert said.endswith(f"{gate.policy_file}:2")
    vouch(gate.site_trust, image_in(images))
    assert ask(gate, images).image == "debian-12"
    write_policy(gate.policy_file, ALL, endorsed="optional")
    assert ask(gate, images, wish("el9")).image == "el9"


def test_a_list_that_expires_takes_its_images_along(gate: Gate, images: Path) -> None:
    vouch(gate.site_trust, image_in(images), life=timedelta(hours=1))
    assert gate.distrust(image_in(images), now()) is None
    later = gate.distrust(image_in(images), now() + timedelta(hours=2))
    assert "rule 'expired'" in str(later)


@pytest.mark.parametrize("which", ["sha512", "endorsed_sha512"])
def test_an_image_is_blocked_by_its_disk_or_by_what_it_was_made_of(
    gate: Gate, images: Path, which: str
) -> None:
    image = replace(image_in(images), endorsed_sha512="a" * 128)
    vouch(gate.site_trust, image)
    assert gate.distrust(image, now()) is None
    TrustStore(directory=gate.site_trust).block(getattr(image, which), "a root kit")
    assert "a root kit" in str(gate.distrust(image, now()))


@pytest.mark.parametrize("own", [True, False])
def test_a_list_may_have_the_disk_or_what_it_was_made_of(
    gate: Gate, images: Path, own: bool
) -> None:
    image = image_in(images)
    made = replace(image, endorsed_sha512="a" * 128)
    vouch(gate.site_trust, image if own else replace(image, sha512="a" * 128))
    write_policy(gate.policy_file, ALL)
    assert gate.distrust(made, now()) is None
    assert gate.distrust_of("debian-12", made.contents, now()) is None
    assert gate.distrust_of("debian-12", ["b" * 128], now()) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")
def test_lists_that_cannot_be_seen_let_nobody_pass(images: Path) -> None:
    # Not where pytest's are: another user must get there.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as top:
        Path(top).chmod(0o755)
        gate = Gate(policy_file=Path(top) / "policy.toml", site_trust=Path(top) / "trust")
        vouch(gate.site_trust, image_in(images))
        (gate.site_trust / "subscriptions").chmod(0o700)
        os.seteuid(54_321)
        try:
            with pytest.raises(Untrusted, match="cannot see which image lists"):
                gate.state()
        finally:
            os.seteuid(0)


def test_what_changes_is_seen_at_the_next_look(gate: Gate, images: Path) -> None:
    before = gate.state()
    vouch(gate.site_trust, image_in(images))
    assert gate.state() != before
    assert gate.admission(image_in(images), now()).trusted
    shutil.rmtree(gate.site_trust)
    assert not gate.admission(image_in(images), now()).trusted


def test_lists_that_are_damaged_let_nobody_pass(gate: Gate, images: Path) -> None:
    vouch(gate.site_trust, image_in(images))
    (gate.site_trust / "blocked.json").write_text("{")
    for _ in range(2):
        assert "cannot be used" in refusal(gate, images)


def test_lists_that_others_could_write_let_nobody_pass(gate: Gate, images: Path) -> None:
    vouch(gate.site_trust, image_in(images))
    (gate.site_trust / "subscriptions").chmod(0o777)
    assert "could have been written by others" in refusal(gate, images)


def test_a_look_costs_little(gate: Gate, images: Path) -> None:
    image = image_in(images)
    many = [replace(image, name=f"i{number}", sha512=f"{number:0128x}") for number in range(1000)]
    vouch(gate.site_trust, image, *many)
    write_policy(gate.policy_file, ALL)
    ask(gate, images)
    began = time.process_time()
    for _ in range(20):
        ask(gate, images)
    assert (time.process_time() - began) / 20 < 0.02


def believed(name: str = "lab", until: datetime | None = None) -> RegistryKey:
    return RegistryKey(
        name=name, prefix="r.example.org", pem="", kind="EC", fingerprint="f", until=until
    )


def signed_in(trust: Path, image: Image) -> TrustStore:
    """Note down what an import does that found a signature."""
    store = TrustStore(directory=trust)
    digest = "sha256:" + "1" * 64
    seen = Signed(repository="r.example.org/lab", digest=digest, fingerprint="f", at=now())
    store.note_signed(image.sha512, replace(seen, at=seen.at.replace(microsecond=0)))
    return store


def test_the_key_of_a_registry_vouches_for_what_it_signed(gate: Gate, images: Path) -> None:
    store = signed_in(gate.site_trust, image_in(images))
    write_policy(gate.policy_file, ALL, "lists = ['lab']\n")
    assert "rule 'unendorsed'" in refusal(gate, images)
    before = gate.state()
    store.add_registry_key(believed())
    assert gate.state() != before
    assert ask(gate, images).image == "debian-12"
    assert "rule 'unendorsed'" in refusal(gate, images, wish("el9"))
    ended = now() - timedelta(hours=1)
    store.add_registry_key(believed(until=ended.replace(microsecond=0)), force=True)
    assert "rule 'key-expired'" in refusal(gate, images)
    store.add_registry_key(believed(), force=True)
    store.block(image_in(images).sha512, "a hole")
    assert "rule 'blocked'" in refusal(gate, images)
    store.unblock(image_in(images).sha512)
    store.add_registry_key(believed("other"))
    store.remove_registry_key("lab")
    # Trusted by the other key; but the policy wants this one's word.
    assert "no rule allows image debian-12" in refusal(gate, images)
    store.remove_registry_key("other")
    assert "rule 'unendorsed'" in str(gate.distrust(image_in(images), now()))


def test_what_a_user_has_seen_signed_is_good_for_his_own_images_only(
    own: Gate, images: Path, tmp_path: Path
) -> None:
    assert own.own_trust is not None
    write_policy(own.policy_file, ALL)
    TrustStore(directory=own.site_trust).add_registry_key(believed())
    for image in (mine(tmp_path), image_in(images)):
        signed_in(own.own_trust, image)
    assert own.admission(mine(tmp_path), now()).trusted
    assert not own.admission(image_in(images), now()).trusted


# --- a policy ------------------------------------------------------------------------------------


def test_a_denial_names_the_rule_and_its_line(gate: Gate, images: Path) -> None:
    rules = '[[policy.deny]]\nwho = ["group:physics"]\nwhy = "ticket 4711"\n'
    write_policy(gate.policy_file, EVERYTHING, rules, endorsed="optional")
    said = refusal(gate, images)
    assert f"{gate.policy_file}:9: image debian-12 is denied: ticket 4711" in said


def test_a_network_that_was_only_set_is_left_out(gate: Gate, images: Path) -> None:
    write_policy(gate.policy_file, ALL, endorsed="optional")
    given = ask(gate, images, wish(network=OPEN))
    assert given.network is NetworkMode.NONE
    assert any("network open is not allowed: none" in note for note in given.notes)
    assert "not with network open" in refusal(gate, images, wish(network=OPEN, network_asked=True))


def test_root_is_had_where_a_rule_says_so(gate: Gate, images: Path) -> None:
    write_policy(gate.policy_file, ALL, endorsed="optional")
    assert not ask(gate, images).may_root
    assert "not with root" in refusal(gate, images, wish(root=True))
    write_policy(gate.policy_file, EVERYTHING, endorsed="optional")
    assert ask(gate, images).may_root
    assert ask(gate, images, wish(root=True)).may_root


def test_an_image_that_is_forced_takes_the_place_of_an_older(gate: Gate, images: Path) -> None:
    force = '[[policy.default]]\nwho = ["*"]\nmode = "force"\nimage = "debian-12"\n'
    canary = 'canary = "el9"\ncanary_share = 100\n'
    write_policy(gate.policy_file, ALL, force, canary, endorsed="optional")
    given = ask(gate, images)
    assert given.image == "el9"
    assert "get el9, this one too" in given.notes[0]
    take_back(gate.site_trust, image_in(images, "el9"))
    assert "rule 'image-revoked'" in refusal(gate, images)


def test_a_mistake_in_a_policy_leaves_the_one_before(gate: Gate, images: Path) -> None:
    write_policy(gate.policy_file, ALL, endorsed="optional")
    ask(gate, images)
    gate.policy_file.write_text("[policy\n")
    assert not ask(gate, images).may_root
    assert "is not TOML" in gate.trouble
    write_policy(gate.policy_file, EVERYTHING, endorsed="optional")
    assert ask(gate, images).may_root
    assert gate.trouble == ""


def test_a_policy_that_was_never_read_lets_nobody_pass(gate: Gate, images: Path) -> None:
    gate.policy_file.write_text("[policy]\nnosuch = 1\n")
    for _ in range(2):
        with pytest.raises(Invalid, match="no such key"):
            ask(gate, images)


# --- a user's own --------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, gate: Gate) -> Gate:
    return replace_gate(gate, tmp_path)


def replace_gate(gate: Gate, top: Path) -> Gate:
    add_image(top / "own", "mine")
    return Gate(
        policy_file=gate.policy_file,
        site_trust=gate.site_trust,
        own_trust=top / "own-trust",
        site_images=top / "images",
    )


def mine(top: Path) -> Image:
    return image_in(top / "own", "mine")


def test_own_images_are_denied_by_a_policy_unless_it_says_so(own: Gate, tmp_path: Path) -> None:
    here = tmp_path / "own"
    assert ask(own, here, wish("mine")).may_root
    write_policy(own.policy_file, EVERYTHING)
    assert "no rule allows images of users" in refusal(own, here, wish("mine"))
    write_policy(own.policy_file, ALL, "user_images = true\n")
    assert ask(own, here, wish("mine")).image == "mine"
    assert "not with directories" in refusal(own, here, wish("mine", shares=True))


def test_a_users_word_is_good_for_his_own_images_only(
    own: Gate, images: Path, tmp_path: Path
) -> None:
    assert own.own_trust is not None
    vouch(own.own_trust, mine(tmp_path), image_in(images))
    write_policy(own.policy_file, ALL)
    assert own.origin(mine(tmp_path)) is Origin.USER
    assert own.admission(mine(tmp_path), now()).trusted
    assert not own.admission(image_in(images), now()).trusted


def test_what_the_site_blocks_is_blocked_for_own_images_too(own: Gate, tmp_path: Path) -> None:
    TrustStore(directory=own.site_trust).block(mine(tmp_path).sha512, "no")
    assert "rule 'blocked'" in refusal(own, tmp_path / "own", wish("mine"))


def test_the_gate_of_a_user_looks_at_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    gate = gate_of(Paths.for_user({"HOME": "/home/ada"}))
    assert gate.site_trust == Path("/var/lib/mayfly/trust")
    assert gate.policy_file == Path("/etc/mayfly/policy.toml")
    assert gate.own_trust is not None
    assert gate_of(Paths.for_user({"MAYFLY_HOME": "/x"})).own_trust is None


def test_somebody_is_in_all_groups_that_anybody_knows_of() -> None:
    account = Account(
        name="ada",
        uid=1,
        gid=1,
        groups=(Group(name="now", gid=5),),
        home="/",
        shell="/bin/sh",
        all_groups=("physics", "now"),
    )
    assert person_of(account) == Person(user="ada", groups=("now", "physics"))


def test_facts_name_lists_and_endorsers(gate: Gate, images: Path) -> None:
    image = image_in(images)
    vouch(gate.site_trust, image)
    facts = facts_of(image, gate.admission(image, now()), Origin.SITE)
    assert (facts.trust, facts.endorsers) == (Trust.TRUSTED, ("/CN=Jo",))
    assert "Ours" in facts.lists
