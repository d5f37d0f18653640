"""What an authority may issue is read as its files say, and never as more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mayfly.images.lists.namespaces import (
    Namespaces,
    Permit,
    glob,
    parse_namespaces,
    parse_signing_policy,
)

CA = "/C=NL/O=NIKHEF/CN=NIKHEF medium-security certification auth"
POLICY = f"""
# EACL entries for a CA; it's a comment with an odd quote
access_id_CA   X509   '{CA}'
pos_rights     globus CA:sign
cond_subjects  globus '"/O=dutchgrid/O=users/*" "/O=dutchgrid/O=hosts/CN=host?"'

access_id_CA   X509   '/C=DE/CN=Other CA'
pos_rights     globus CA:sign
cond_subjects  globus '/C=DE/O=One Site/*'
"""
SPACES = f"""
#NAMESPACES-VERSION: 1.0
TO Issuer "{CA}" \\
  PERMIT Subject "/O=dutchgrid/.*"
TO Issuer "{CA}" DENY Subject "/O=dutchgrid/O=robots/.*"
TO Issuer SELF PERMIT Subject "/O=self/.*"
TO Issuer "{CA}" PERMIT Subject "("
"""


def spaces(permits: tuple[Permit, ...]) -> Namespaces:
    return Namespaces(where="a file", permits=permits)


@pytest.mark.parametrize(
    ("issuer", "subject", "allowed"),
    [
        (CA, "/O=dutchgrid/O=users/CN=x", True),
        (CA, "/O=dutchgrid/O=users/", True),
        (CA, "/O=dutchgrid/O=hosts/CN=host1", True),
        (CA, "/O=dutchgrid/O=hosts/CN=host12", False),
        (CA, "/O=dutchgrid/CN=x", False),
        (CA, "/X=y/O=dutchgrid/O=users/CN=x", False),
        (CA, "/C=DE/O=One Site/CN=x", False),
        ("/C=DE/CN=Other CA", "/C=DE/O=One Site/CN=x", True),
        ("/C=DE/CN=Third CA", "/C=DE/O=One Site/CN=x", False),
    ],
)
def test_a_signing_policy_allows_what_it_names(issuer: str, subject: str, allowed: bool) -> None:
    assert spaces(parse_signing_policy(POLICY)).allows(issuer, subject) is allowed


@pytest.mark.parametrize(
    ("subject", "allowed"),
    [
        ("/O=dutchgrid/CN=x", True),
        ("/O=dutchgrid/O=robots/CN=x", False),
        ("/O=other/CN=x", False),
        ("/X=y/O=dutchgrid/CN=x", False),
        ("/O=self/CN=x", False),
    ],
)
def test_a_namespaces_file_permits_and_denies(subject: str, allowed: bool) -> None:
    assert spaces(parse_namespaces(SPACES)).allows(CA, subject) is allowed


def test_self_is_the_authority_beside_the_file() -> None:
    assert spaces(parse_namespaces(SPACES, "/CN=own")).allows("/CN=own", "/O=self/CN=x")


@pytest.mark.parametrize(
    "text",
    [
        f"access_id_CA X509 '{CA}'\ncond_subjects globus '\"/O=x/*\"'",
        f"access_id_CA X509 '{CA}'\nneg_rights globus CA:sign\ncond_subjects globus '\"/O=x/*\"'",
        f"access_id_USER X509 '{CA}'\npos_rights globus CA:sign\ncond_subjects globus '\"/*\"'",
        "pos_rights globus CA:sign\ncond_subjects globus '\"/*\"'",
        f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\ncond_subjects globus '\"/O=x/*",
        f"access_id_CA X509 '{CA}'\npos_rights globus CA:sign\ncond_subjects globus ''",
    ],
)
def test_a_policy_that_does_not_say_so_allows_nothing(text: str) -> None:
    assert not spaces(parse_signing_policy(text)).allows(CA, "/O=x/CN=y")


def test_email_is_one_key_in_all_its_spellings() -> None:
    permits = parse_signing_policy(POLICY.replace("/O=users/*", "/O=users/Email=*"))
    assert spaces(permits).allows(CA, "/O=dutchgrid/O=users/emailAddress=a@b")


@given(st.text("ab.*?/+[](", max_size=12), st.text("ab./+[](", max_size=12))
def test_a_pattern_without_signs_is_only_itself(pattern: str, name: str) -> None:
    fits = glob(pattern).fullmatch(name) is not None
    if "*" not in pattern and "?" not in pattern:
        assert fits == (pattern == name)
    assert glob("*").fullmatch(name)


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    assert all(permit.issuer for permit in parse_signing_policy(text))
    assert all(permit.issuer for permit in parse_namespaces(text))
