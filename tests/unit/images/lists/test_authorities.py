"""A grid's directory is read as fetch-crl and the distributions of authorities leave it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mayfly.errors import Invalid
from mayfly.images.lists.authorities import Anchors
from mayfly.images.lists.openssl import Signer, certificate, crls_of, read_certificate
from tests.unit.images.lists.pki import Ca, make_ca, openssl


def issuers(grid: Path, signer: Signer) -> list[str]:
    child = read_certificate(signer.certificate)
    return [found.certificate.subject.slash for found in Anchors(grids=(grid,)).issuers_of(child)]


def test_an_authority_is_found_by_its_hash_once(grid: Path, root_ca: Ca, jo: Signer) -> None:
    name = root_ca.hash()
    shutil.copy(grid / f"{name}.0", grid / "root-ca.pem")
    (grid / f"{name}.1").symlink_to(f"{name}.0")
    assert issuers(grid, jo) == [root_ca.subject]
    (found,) = Anchors(grids=(grid,)).issuers_of(read_certificate(jo.certificate))
    assert len(found.crls) == 1
    assert found.crl_required


def test_a_directory_without_hashes_is_read_through(grid: Path, root_ca: Ca, jo: Signer) -> None:
    name = root_ca.hash()
    for old, new in (("0", "root.pem"), ("r0", "root.r0"), ("signing_policy", "x.signing_policy")):
        (grid / f"{name}.{old}").rename(grid / new)
    (found,) = Anchors(grids=(grid,)).issuers_of(read_certificate(jo.certificate))
    assert len(found.crls) == 1
    assert found.namespaces


def test_authorities_of_one_name_are_all_found(
    tmp_path: Path, grid: Path, root_ca: Ca, jo: Signer
) -> None:
    renewed = make_ca(tmp_path / "renewed", root_ca.subject)
    shutil.copy(renewed.certificate, grid / f"{root_ca.hash()}.1")
    assert issuers(grid, jo) == [root_ca.subject] * 2


def test_revocation_lists_of_another_authority_are_left_out(
    tmp_path: Path, grid: Path, root_ca: Ca, jo: Signer
) -> None:
    other = make_ca(tmp_path / "other", "/C=DE/CN=Other")
    (grid / f"{root_ca.hash()}.r1").write_bytes(other.crl())
    (found,) = Anchors(grids=(grid,)).issuers_of(read_certificate(jo.certificate))
    assert len(found.crls) == 1


def test_files_that_cannot_be_read_are_left_out(grid: Path, root_ca: Ca, jo: Signer) -> None:
    name = root_ca.hash()
    (grid / f"{name}.1").write_bytes(b"rubbish")
    (grid / f"{name}.2").mkdir()
    (grid / f"{name}.r1").write_bytes(b"\0" * 100)
    (grid / "x.signing_policy").write_bytes(b"\xff\xfe '")
    (grid / "y.namespaces").mkdir()
    assert issuers(grid, jo) == [root_ca.subject]


def test_a_directory_that_is_not_there_has_nobody(tmp_path: Path, jo: Signer) -> None:
    assert issuers(tmp_path / "nowhere", jo) == []


def test_a_name_decides_not_the_name_of_a_file(tmp_path: Path, root_ca: Ca, jo: Signer) -> None:
    other = make_ca(tmp_path / "other", "/C=DE/CN=Other")
    grid = tmp_path / "grid"
    other.install(grid)
    (grid / f"{other.hash()}.0").rename(grid / f"{root_ca.hash()}.0")
    assert issuers(grid, jo) == []


def test_der_is_taken_where_people_give_files(tmp_path: Path, root_ca: Ca, jo: Signer) -> None:
    der = tmp_path / "jo.der"
    der.write_bytes(openssl("x509", "-in", jo.certificate, "-outform", "DER"))
    assert read_certificate(der).fingerprint == read_certificate(jo.certificate).fingerprint
    crl = openssl("crl", "-outform", "DER", stdin=root_ca.crl())
    assert crls_of(crl, Path("x.crl"))[0].startswith(b"-----BEGIN X509 CRL-----")


@pytest.mark.parametrize("data", [b"", b"rubbish", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(Invalid):
        read_certificate(tmp_path / "x")
    with pytest.raises(Invalid):
        certificate(data)
    with pytest.raises(Invalid):
        crls_of(data, tmp_path / "x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no-such-file"):
        read_certificate(tmp_path / "no-such-file")


def test_a_certificate_tells_its_dates_and_key(root_ca: Ca) -> None:
    made = read_certificate(root_ca.issue("dates").certificate)
    assert (made.not_after - made.not_before).days == 91
    assert (made.key_kind, made.key_bits) == ("EC", 256)
    assert made.issuer_hash == root_ca.hash()
    assert replace(made) == made
