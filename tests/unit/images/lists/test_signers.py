"""Who may sign a list: every rule refuses what breaks it; all certificates are real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.images.lists.authorities import Anchor, Anchors, Kind, Role
from mayfly.images.lists.check import (
    CheckRules,
    Principal,
    Verified,
)
from mayfly.images.lists.openssl import Signer, read_certificate
from mayfly.images.lists.rules import Rule
from mayfly.images.lists.writer import render_list
from tests.unit.images.lists.judging import SHA1_TOO, broken, judge
from tests.unit.images.lists.pki import DAY, NOW, SPACE, Ca, make_ca, make_self_signed, openssl
from tests.unit.images.lists.samples import (
    endorser_of,
    image_list,
    sign_text,
    signed_list,
)

# --- who signed ----------------------------------------------------------------------------------


def test_another_signer_than_the_endorser_named_is_refused(
    root_ca: Ca, jo: Signer, grid: Path
) -> None:
    other = root_ca.issue("other")
    text = render_list(replace(image_list(), endorser=endorser_of(jo)))
    assert broken(judge(sign_text(text, other), jo, grid)) is Rule.DN


def test_another_authority_than_the_one_named_is_refused(jo: Signer, grid: Path) -> None:
    endorser = replace(endorser_of(jo), ca="/C=DE/O=Mayfly Test/CN=Other CA")
    text = render_list(replace(image_list(), endorser=endorser))
    assert broken(judge(sign_text(text, jo), jo, grid)) is Rule.CA


def test_an_endorser_who_is_not_authorised_is_refused(root_ca: Ca, jo: Signer, grid: Path) -> None:
    other = root_ca.issue("stranger")
    assert broken(judge(signed_list(other), jo, grid)) is Rule.ENDORSER


def test_an_endorser_is_bound_to_his_authority(jo: Signer, grid: Path) -> None:
    who = Principal(dn=endorser_of(jo).dn, ca=f"{SPACE}/CN=Other CA")
    assert broken(judge(signed_list(jo), jo, grid, endorsers=(who,))) is Rule.ENDORSER
    free = replace(who, ca="")
    assert broken(judge(signed_list(jo), jo, grid, endorsers=(free,))) is None


def test_nobody_is_authorised_where_nobody_is_named(jo: Signer, grid: Path) -> None:
    assert broken(judge(signed_list(jo), jo, grid, endorsers=())) is Rule.ENDORSER


def test_an_authority_that_is_not_known_is_refused(jo: Signer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert broken(judge(signed_list(jo), jo, tmp_path / "empty")) is Rule.AUTHORITY


def test_an_authority_of_the_same_name_is_refused(root_ca: Ca, tmp_path: Path, grid: Path) -> None:
    forged = make_ca(tmp_path / "forged", root_ca.subject)
    mallory = forged.issue("Jo Endorser")
    assert broken(judge(signed_list(mallory), mallory, grid)) is Rule.AUTHORITY


def test_certificates_in_the_message_make_no_authority(tmp_path: Path, grid: Path) -> None:
    forged = make_ca(tmp_path / "forged", f"{SPACE}/CN=Forged CA")
    mallory = forged.issue("mallory")
    text = render_list(replace(image_list(), endorser=endorser_of(mallory)))
    message = openssl(
        *("smime", "-sign", "-signer", mallory.certificate, "-inkey", mallory.key),
        *("-certfile", forged.certificate),
        stdin=text,
    )
    assert broken(judge(message, mallory, grid)) is Rule.AUTHORITY


def test_a_key_that_signed_itself_is_refused(tmp_path: Path, grid: Path) -> None:
    own = make_self_signed(tmp_path / "own", "own", f"{SPACE}/CN=own")
    assert broken(judge(signed_list(own), own, grid)) is Rule.AUTHORITY


def test_an_expired_certificate_is_refused(root_ca: Ca, grid: Path) -> None:
    old = root_ca.issue("old", start=NOW - 9 * DAY, end=NOW - DAY)
    assert broken(judge(signed_list(old), old, grid)) is Rule.CERTIFICATE_EXPIRED


def test_a_certificate_that_is_not_valid_yet_is_refused(root_ca: Ca, grid: Path) -> None:
    early = root_ca.issue("early", start=NOW + DAY)
    assert broken(judge(signed_list(early), early, grid)) is Rule.NOT_YET_VALID


def test_a_revoked_certificate_is_refused(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca", f"{SPACE}/CN=Revoking CA")
    signer = ca.issue("soon revoked")
    ca.install(tmp_path / "grid")
    message = signed_list(signer)
    assert broken(judge(message, signer, tmp_path / "grid")) is None
    ca.revoke(signer)
    ca.install(tmp_path / "grid")
    assert broken(judge(message, signer, tmp_path / "grid")) is Rule.CERTIFICATE_REVOKED


def crl_cases(root: Ca, other: Ca) -> dict[Rule, bytes]:
    return {
        Rule.CRL_MISSING: b" ",
        Rule.CRL_EXPIRED: root.crl(last=NOW - 9 * DAY, following=NOW - DAY),
        Rule.CRL_FUTURE: root.crl(last=NOW + DAY, following=NOW + 9 * DAY),
        Rule.CRL_SIGNATURE: other.crl(),
    }


@pytest.mark.parametrize(
    "rule", [Rule.CRL_MISSING, Rule.CRL_EXPIRED, Rule.CRL_FUTURE, Rule.CRL_SIGNATURE]
)
def test_a_revocation_list_must_be_there_fresh_and_genuine(
    root_ca: Ca, jo: Signer, tmp_path: Path, rule: Rule
) -> None:
    forged = make_ca(tmp_path / "forged", root_ca.subject)
    root_ca.install(tmp_path / "grid", crl=crl_cases(root_ca, forged)[rule])
    assert broken(judge(signed_list(jo), jo, tmp_path / "grid")) is rule


def test_a_name_that_the_authority_may_not_issue_is_refused(
    root_ca: Ca, jo: Signer, tmp_path: Path
) -> None:
    root_ca.install(tmp_path / "grid", space="/C=DE/O=Other/*")
    assert broken(judge(signed_list(jo), jo, tmp_path / "grid")) is Rule.NAMESPACE


def test_an_authority_of_which_nothing_is_said_may_issue_nothing(
    root_ca: Ca, jo: Signer, tmp_path: Path
) -> None:
    root_ca.install(tmp_path / "grid", policy=False)
    assert broken(judge(signed_list(jo), jo, tmp_path / "grid")) is Rule.NAMESPACE


def test_both_kinds_of_name_files_must_allow(root_ca: Ca, jo: Signer, grid: Path) -> None:
    spaces = grid / f"{root_ca.hash()}.namespaces"
    line = f'TO Issuer "{root_ca.subject}" \\\n  PERMIT Subject "{SPACE}/{{}}"\n'
    spaces.write_text(line.format("CN=Jo .*"))
    assert broken(judge(signed_list(jo), jo, grid)) is None
    spaces.write_text(line.format("CN=Ann .*"))
    assert broken(judge(signed_list(jo), jo, grid)) is Rule.NAMESPACE


@pytest.fixture(scope="module")
def below(root_ca: Ca) -> Ca:
    return root_ca.below("below", f"{SPACE}/CN=Sub CA")


@pytest.fixture(scope="module")
def ann(below: Ca) -> Signer:
    return below.issue("Ann")


def test_an_authority_below_another_needs_all_of_them_known(
    below: Ca, ann: Signer, grid: Path, tmp_path: Path
) -> None:
    message = signed_list(ann)
    assert broken(judge(message, ann, grid)) is Rule.AUTHORITY
    below.install(tmp_path / "alone")
    assert broken(judge(message, ann, tmp_path / "alone")) is Rule.AUTHORITY
    below.install(grid)
    assert broken(judge(message, ann, grid)) is None


def test_each_authority_needs_its_own_revocation_list(below: Ca, ann: Signer, grid: Path) -> None:
    below.install(grid, crl=b" ")
    assert broken(judge(signed_list(ann), ann, grid)) is Rule.CRL_MISSING


def test_the_names_of_every_authority_count(
    root_ca: Ca, below: Ca, ann: Signer, tmp_path: Path
) -> None:
    grid = tmp_path / "grid"
    root_ca.install(grid, space=f"{SPACE}/CN=Jo*")
    below.install(grid)
    assert broken(judge(signed_list(ann), ann, grid)) is Rule.NAMESPACE


def test_a_revoked_authority_is_refused(tmp_path: Path) -> None:
    root = make_ca(tmp_path / "root", f"{SPACE}/CN=Strict Root")
    sub = root.below("sub", f"{SPACE}/CN=Strict Sub")
    signer = sub.issue("someone")
    root.revoke(Signer(key=Path(), certificate=sub.certificate))
    for ca in (root, sub):
        ca.install(tmp_path / "grid")
    assert broken(judge(signed_list(signer), signer, tmp_path / "grid")) is Rule.CERTIFICATE_REVOKED


def test_a_person_is_no_authority(root_ca: Ca, jo: Signer, grid: Path) -> None:
    # Jo's certificate is used as if it were that of an authority, and even installed as one.
    made = replace(root_ca, directory=root_ca.directory.parent / "jo")
    made.directory.mkdir(exist_ok=True)
    for name in ("ca.cnf", "index.txt", "serial", "crlnumber"):
        text = (root_ca.directory / name).read_text().replace("/root", "/jo")
        (made.directory / name).write_text("" if name == "index.txt" else text)
    (made.directory / "ca.key").write_bytes(jo.key.read_bytes())
    (made.directory / "ca.pem").write_bytes(jo.certificate.read_bytes())
    made = replace(made, subject=endorser_of(jo).dn)
    mallory = made.issue("mallory of jo")
    made.install(grid)
    assert broken(judge(signed_list(mallory), mallory, grid)) is Rule.KEY_USAGE


@pytest.mark.parametrize("section", ["host", "cipher"])
def test_a_certificate_for_something_else_is_refused(root_ca: Ca, grid: Path, section: str) -> None:
    other = root_ca.issue(f"a {section}", section=section)
    assert broken(judge(signed_list(other), other, grid)) is Rule.KEY_USAGE


def test_a_weak_key_is_refused_whatever_is_allowed(root_ca: Ca, grid: Path) -> None:
    weak = root_ca.issue("weak", kind="rsa:1024")
    for rules in (CheckRules(), SHA1_TOO):
        assert broken(judge(signed_list(weak), weak, grid, rules)) is Rule.WEAK_KEY


def test_a_weak_key_of_an_authority_is_refused(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca", f"{SPACE}/CN=Weak CA", "rsa:1024")
    ca.install(tmp_path / "grid")
    signer = ca.issue("strong")
    for rules in (CheckRules(), SHA1_TOO):
        found = judge(signed_list(signer), signer, tmp_path / "grid", rules)
        assert broken(found) is Rule.WEAK_KEY


def test_a_certificate_that_was_signed_with_sha1_is_refused_unless_allowed(
    root_ca: Ca, grid: Path
) -> None:
    old = root_ca.issue("of old")
    root_ca.sign("of old", f"{SPACE}/CN=of old", "person", digest="sha1")
    assert broken(judge(signed_list(old), old, grid)) is Rule.SHA1
    assert broken(judge(signed_list(old), old, grid, SHA1_TOO)) is None


def test_a_certificate_that_was_signed_with_md5_is_refused_even_then(
    root_ca: Ca, grid: Path
) -> None:
    old = root_ca.issue("of very old")
    root_ca.sign("of very old", f"{SPACE}/CN=of very old", "person", digest="md5")
    for rules in (CheckRules(), SHA1_TOO):
        assert broken(judge(signed_list(old), old, grid, rules)) is Rule.DIGEST


def test_a_name_that_hides_another_is_refused(root_ca: Ca, grid: Path) -> None:
    tricky = root_ca.issue("tricky", f"{SPACE}\\/CN=Jo Endorser/CN=x")
    assert broken(judge(signed_list(tricky), tricky, grid)) is Rule.NAME


def test_a_slash_in_a_host_name_hides_nothing(root_ca: Ca, grid: Path) -> None:
    robot = root_ca.issue("robot", f"{SPACE}/CN=host\\/robot.example.org")
    assert endorser_of(robot).dn == f"{SPACE}/CN=host/robot.example.org"
    assert broken(judge(signed_list(robot), robot, grid)) is None


def test_letters_beyond_ascii_are_one_name_in_both_spellings(root_ca: Ca, grid: Path) -> None:
    name = root_ca.issue("umlaut", f"{SPACE}/CN=Jürgen")
    assert endorser_of(name).dn == f"{SPACE}/CN=J\\xC3\\xBCrgen"
    plain = replace(endorser_of(name), dn=f"{SPACE}/CN=Jürgen")
    text = render_list(replace(image_list(), endorser=plain))
    assert broken(judge(sign_text(text, name), name, grid)) is None


# --- certificates that the site added ------------------------------------------------------------


def key_anchor(signer: Signer, *roles: Role) -> Anchors:
    owner = read_certificate(signer.certificate)
    anchor = Anchor(
        name="own", kind=Kind.KEY, certificate=owner, roles=frozenset(roles or tuple(Role))
    )
    return Anchors(own=(anchor,))


def test_a_key_of_the_site_needs_no_authority(tmp_path: Path) -> None:
    own = make_self_signed(tmp_path / "own", "own", "/O=Site/CN=Images of the site")
    result = judge(signed_list(own), own, key_anchor(own))
    assert isinstance(result, Verified), result
    assert result.where == "anchor 'own'"


def test_a_persons_certificate_can_be_trusted_without_its_authority(jo: Signer) -> None:
    assert broken(judge(signed_list(jo), jo, key_anchor(jo))) is None


def test_a_key_vouches_for_no_other_certificate_of_its_name(tmp_path: Path) -> None:
    own = make_self_signed(tmp_path / "own", "own", "/O=Site/CN=own")
    forged = make_self_signed(tmp_path / "forged", "own", "/O=Site/CN=own")
    assert broken(judge(signed_list(forged), forged, key_anchor(own))) is Rule.AUTHORITY


def test_a_key_that_makes_images_signs_no_lists(jo: Signer) -> None:
    anchors = key_anchor(jo, Role.IMAGE)
    assert broken(judge(signed_list(jo), jo, anchors)) is Rule.ROLE


def test_an_added_key_is_refused_when_it_has_expired(root_ca: Ca) -> None:
    old = root_ca.issue("old key", start=NOW - 9 * DAY, end=NOW - DAY)
    assert broken(judge(signed_list(old), old, key_anchor(old))) is Rule.CERTIFICATE_EXPIRED


def authority_anchor(ca: Ca, **changes: object) -> Anchors:
    made = Anchor(name="ours", kind=Kind.AUTHORITY, certificate=read_certificate(ca.certificate))
    return Anchors(own=(replace(made, **changes),))  # type: ignore[arg-type]  # a test's own


def test_an_authority_of_the_site_needs_its_revocation_list_unless_it_has_none(
    root_ca: Ca, jo: Signer
) -> None:
    message = signed_list(jo)
    assert broken(judge(message, jo, authority_anchor(root_ca))) is Rule.CRL_MISSING
    assert broken(judge(message, jo, authority_anchor(root_ca, crl_required=False))) is None
    assert broken(judge(message, jo, authority_anchor(root_ca, crls=(root_ca.crl(),)))) is None


def test_a_revocation_list_that_is_there_counts_even_if_none_is_required(tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca", f"{SPACE}/CN=Own CA")
    signer = ca.issue("leaving")
    ca.revoke(signer)
    anchors = authority_anchor(ca, crls=(ca.crl(),), crl_required=False)
    assert broken(judge(signed_list(signer), signer, anchors)) is Rule.CERTIFICATE_REVOKED


def test_an_authority_of_the_site_is_bound_to_names_and_roles(root_ca: Ca, jo: Signer) -> None:
    message = signed_list(jo)
    free = authority_anchor(root_ca, crl_required=False, subjects=(f"{SPACE}/CN=Jo*",))
    assert broken(judge(message, jo, free)) is None
    bound = authority_anchor(root_ca, crl_required=False, subjects=(f"{SPACE}/CN=Ann*",))
    assert broken(judge(message, jo, bound)) is Rule.NAMESPACE
    images = authority_anchor(root_ca, crl_required=False, roles=frozenset({Role.IMAGE}))
    assert broken(judge(message, jo, images)) is Rule.ROLE


def test_an_authority_lends_its_role_to_no_other_of_its_name(
    root_ca: Ca, jo: Signer, tmp_path: Path
) -> None:
    namesake = make_ca(tmp_path / "namesake", root_ca.subject)
    for_images = authority_anchor(root_ca, crl_required=False, roles=frozenset({Role.IMAGE}))
    for_lists = authority_anchor(namesake, crl_required=False, roles=frozenset({Role.LIST}))
    both = Anchors(own=(*for_images.own, *for_lists.own))
    assert broken(judge(signed_list(jo), jo, both)) is Rule.AUTHORITY
