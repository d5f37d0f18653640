"""``mayfly web``: the site's web page."""

from __future__ import annotations

import click

from mayfly.cli.lease import required_server
from mayfly.cli.output import plain, print_json


@click.group(
    epilog="""\b
Examples:
  mayfly web login                 # prints a link; open it in a browser
  mayfly web login --json
"""
)
def web() -> None:
    """Sign in to the site's web page."""


@web.command(epilog="\b\nExamples:\n  mayfly web login")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def login(as_json: bool) -> None:
    """Print a link that signs you in, once, within ten minutes.

    Whoever opens it first is you: give it to nobody.
    """
    with required_server() as client:
        url = client.sign_in_link()
    if as_json:
        print_json({"url": url})
    else:
        click.echo(plain(url))
