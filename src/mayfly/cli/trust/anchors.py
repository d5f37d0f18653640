"""``mayfly trust add``: believe a certificate."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import click

from mayfly.cli.output import Progress, plain
from mayfly.cli.trust.group import store, trust
from mayfly.errors import Invalid, Untrusted
from mayfly.images.lists.authorities import Anchor, Anchors, Kind, Role
from mayfly.images.lists.model import show_time
from mayfly.images.lists.openssl import Certificate, crls_of, is_authority, read_certificate
from mayfly.images.lists.rules import Refused
from mayfly.images.lists.signers import SignerRules, check_signer


@trust.command(
    epilog="""\b
Examples:
  mayfly trust add endorser.pem
  mayfly trust add endorser.pem --name jo --role image-endorser
  mayfly trust add ca.pem --crl ca.crl --subject "/O=Our site/*"
  mayfly trust add ca.pem --no-crl

\b
Compare the fingerprint with what its owner tells you. Authorities of grids need not
be added: those in the directory of the setting grid_certificates are known.
"""
)
@click.argument("cert", type=click.Path(path_type=Path))
@click.option("--name", default="", help="What to call it here [default: from its own name].")
@click.option(
    "--kind",
    type=click.Choice([kind.value for kind in Kind]),
    help="Whether it signs itself, or issues certificates [default: as it says].",
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice([role.value for role in Role]),
    help="What its word is good for [default: both]. Repeatable.",
)
@click.option(
    "--crl",
    "crls",
    multiple=True,
    type=click.Path(path_type=Path),
    help="An authority's revocation list. Repeatable.",
)
@click.option("--no-crl", is_flag=True, help="Do without a revocation list of an authority.")
@click.option(
    "--subject",
    "subjects",
    multiple=True,
    metavar="PATTERN",
    help="Names that an authority may issue [default: all]. Repeatable.",
)
@click.option("--force", is_flag=True, help="Take the place of one of that name.")
def add(
    cert: Path,
    name: str,
    kind: str | None,
    roles: tuple[str, ...],
    crls: tuple[Path, ...],
    no_crl: bool,
    subjects: tuple[str, ...],
    force: bool,
) -> None:
    """Believe certificate CERT: lists and images that it signs, or its authority."""
    found = read_certificate(cert)
    chosen = Kind(kind) if kind else (Kind.AUTHORITY if is_authority(found.pem) else Kind.KEY)
    if chosen is Kind.KEY and (crls or no_crl or subjects):
        raise click.UsageError("--crl, --no-crl and --subject are for authorities")
    anchor = Anchor(
        name=name or _name_of(found),
        kind=chosen,
        certificate=found,
        roles=frozenset(map(Role, roles)) or frozenset(Role),
        crls=tuple(crl for file in crls for crl in _crls(file)),
        crl_required=not no_crl,
        subjects=subjects or ("/*",),
    )
    _check(anchor)
    store().add_anchor(anchor, force=force)
    _show(anchor)


def _name_of(found: Certificate) -> str:
    common = found.subject.slash.rpartition("/CN=")[2] or found.subject.slash
    words = re.sub(r"[^a-z0-9._-]+", "-", common.lower()).strip("-._")
    return words[:64].rstrip("-._") or found.fingerprint[:16]


def _crls(file: Path) -> tuple[bytes, ...]:
    try:
        return crls_of(file.read_bytes(), file)
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error


def _check(anchor: Anchor) -> None:
    """Refuse a key that would be refused whenever it has signed something."""
    if anchor.kind is Kind.AUTHORITY:
        if anchor.crl_required and not anchor.crls:
            Progress().warn(
                f"'{anchor.name}' has no revocation list: what it issued is refused until it is "
                "added again with --crl, or with --no-crl"
            )
        return
    role = next(iter(anchor.roles))
    try:
        check_signer(
            anchor.certificate, role, Anchors(own=(anchor,)), SignerRules(), datetime.now(UTC)
        )
    except Refused as refused:
        raise Untrusted(
            f"what it signs would be refused: {refused.refusal}", hint=refused.refusal.rule.mend
        ) from refused


def _show(anchor: Anchor) -> None:
    found = anchor.certificate
    click.echo(f"added {anchor.kind.value} {anchor.name}")
    click.echo(f"  name         {plain(found.subject.slash)}")
    click.echo(f"  issued by    {plain(found.issuer.slash)}")
    click.echo(f"  valid until  {show_time(found.not_after)}")
    click.echo(f"  believed as  {', '.join(sorted(role.value for role in anchor.roles))}")
    click.echo(f"  fingerprint  {found.fingerprint}")
