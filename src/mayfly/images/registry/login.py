"""Who we are to a registry: the passwords that ``docker login`` and ``skopeo login`` keep."""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from mayfly.errors import Denied, Untrusted
from mayfly.images.lists.uris import UriRules
from mayfly.images.registry.requests import Ask, Reply, send

_PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]{0,2048})"')
_TOKEN = re.compile(r"[!-~]{1,65536}")


@dataclass(frozen=True, slots=True)
class Secret:
    """A word that is never shown."""

    word: str

    def __repr__(self) -> str:
        return "Secret(***)"


def login_files(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Give the files that logins are in, the first of which counts; as skopeo looks for them."""
    if given := environ.get("REGISTRY_AUTH_FILE"):
        return (Path(given),)
    runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    docker = environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    return (Path(runtime) / "containers/auth.json", Path(docker) / "config.json")


def find_login(host: str, files: tuple[Path, ...]) -> Secret | None:
    """Give the word for Basic authentication, if this user has logged in there."""
    for file in files:
        try:
            auths = json.loads(file.read_bytes())["auths"]
            word = auths.get(host, {}).get("auth", "")
            base64.b64decode(word, validate=True)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, binascii.Error):
            continue
        if word:
            return Secret(word)
    return None


def authorise(
    refusal: Reply, login: Secret | None, *, scope: str, rules: UriRules
) -> Mapping[str, str]:
    """Give the header that the registry asks for in its refusal: a token, or the password."""
    scheme, _, rest = refusal.headers.get("WWW-Authenticate", "").partition(" ")
    if scheme.lower() == "basic" and login is not None:
        return {"Authorization": f"Basic {login.word}"}
    if scheme.lower() != "bearer":
        raise refusal.error()
    given = dict(_PARAMETER.findall(rest))
    realm = given.get("realm", "")
    if urlsplit(refusal.url).scheme == "https" and urlsplit(realm).scheme != "https":
        raise Untrusted(f"{refusal.url} wants a token from {realm[:200]}, which is not encrypted")
    # Our own scope: the registry would have us ask again for each kind of request.
    query = {"service": given.get("service", ""), "scope": scope}
    url = realm + ("&" if "?" in realm else "?") + urlencode({k: v for k, v in query.items() if v})
    headers = {"Authorization": f"Basic {login.word}"} if login else {}
    reply = send(Ask(method="GET", url=url, headers=headers), rules)
    if reply.status != 200:
        raise reply.error()
    table = reply.json()
    token = table.get("token") or table.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise Denied(f"{realm} gave no token", hint="see that its registry is set up rightly")
    return {"Authorization": f"Bearer {token}"}
