"""Judge a message in a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mayfly.images.lists.authorities import Anchors
from mayfly.images.lists.check import CheckRules, Expected, Principal, Verified, check_list
from mayfly.images.lists.openssl import Signer
from mayfly.images.lists.rules import Refusal, Rule
from mayfly.images.lists.signers import SignerRules
from tests.unit.images.lists.pki import NOW
from tests.unit.images.lists.samples import LIST, endorser_of

SHA1_TOO = CheckRules(signer=SignerRules(sha1=True))


def expected_of(signer: Signer) -> Expected:
    """Expect a list of this signer's."""
    who = endorser_of(signer)
    return Expected(endorsers=(Principal(dn=who.dn, ca=who.ca),), identifier=LIST)


def judge(
    message: bytes,
    signer: Signer,
    anchors: Anchors | Path,
    rules: CheckRules | None = None,
    **changes: object,
) -> Verified | Refusal:
    """Check a message that its signer may sign, with changes to what is expected."""
    known = Anchors(grids=(anchors,)) if isinstance(anchors, Path) else anchors
    expected = replace(expected_of(signer), **changes)  # type: ignore[arg-type]  # a test's own
    return check_list(message, known, expected, rules or CheckRules(), NOW)


def broken(result: Verified | Refusal) -> Rule | None:
    """Give the rule that was broken."""
    return result.rule if isinstance(result, Refusal) else None
