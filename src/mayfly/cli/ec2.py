"""``mayfly ec2``: the EC2 query API of the site, and the keys that its users sign with."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import ModuleType

import click

from mayfly.cli.serverparts import config_option, parts_of, settings_file


@click.group(
    epilog="""\b
Examples:
  mayfly ec2 serve --config /etc/mayfly/server.toml    # beside 'mayfly server serve', as its user
  mayfly ec2 issue alice                               # shows the secret, once
  mayfly ec2 revoke MFKAABCDEFGHIJKLMNOP
"""
)
def ec2() -> None:
    """Let boto3 and the aws command have machines from this site."""


def _parts() -> ModuleType:
    return parts_of("ec2_wiring", "the EC2 API")


@ec2.command(epilog="\b\nExamples:\n  mayfly ec2 serve --config /etc/mayfly/server.toml")
@config_option
def serve(config: Path | None) -> None:
    """Answer requests in the foreground until SIGTERM; the site server makes the machines."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    _parts().serve(settings_file(config))


@ec2.command(epilog="\b\nExamples:\n  mayfly ec2 issue alice")
@click.argument("user")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@config_option
def issue(user: str, as_json: bool, config: Path | None) -> None:
    """Make a key for USER; its secret is shown this once and never again."""
    issued = _parts().issue_key(settings_file(config), user)
    key = issued.credential.access_key
    if as_json:
        click.echo(json.dumps({"user": user, "access_key": key, "secret": issued.secret}))
        return
    click.echo(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {issued.secret}")


@ec2.command(epilog="\b\nExamples:\n  mayfly ec2 revoke MFKAABCDEFGHIJKLMNOP --yes")
@click.argument("access_key")
@click.option("--yes", is_flag=True, help="Do not ask.")
@config_option
def revoke(access_key: str, yes: bool, config: Path | None) -> None:
    """Take ACCESS_KEY out of force, at once and for good; machines stay."""
    if not yes:
        click.confirm(f"Take {access_key} out of force?", abort=True, err=True)
    _parts().revoke_key(settings_file(config), access_key)
