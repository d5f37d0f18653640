"""The form that makes a machine."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from mayfly.errors import Invalid, MayflyError
from mayfly.server.problems import status_of
from mayfly.server.shapes import NewLease
from mayfly.server.site import Site
from mayfly.server.web.form import Fields, Form
from mayfly.server.web.machines import spans
from mayfly.server.web.pages import Page, go, render
from mayfly.server.web.visits import Visiting, Visitor, check_form
from mayfly.units import parse_duration

DEFAULTS = {
    "image": "",
    "name": "",
    "cpus": "1",
    "memory_mib": "512",
    "network": "none",
    "for": "1d",
    "group": "",
    "ssh_keys": "",
}
MEMORIES = {256: "256 MiB", 512: "512 MiB", 1024: "1 GiB", 2048: "2 GiB", 4096: "4 GiB"}
MEMORIES |= {8192: "8 GiB", 16384: "16 GiB"}
WORDS = {
    "image": "Choose an image from the list.",
    "name": "Small letters, digits and hyphens; it begins and ends with a letter or digit.",
    "cpus": "A whole number from 1 to 255.",
    "memory_mib": "Choose one from the list.",
    "network": "Choose one of both.",
    "for": "Choose one from the list.",
    "group": "Choose one of your groups.",
    "ssh_keys": "One public key in each line, as in an authorized_keys file, at most 16.",
}
"""What a field wants, said when it has something else."""


def make_creating(site: Site) -> APIRouter:
    """Give the pages."""
    router = APIRouter(route_class=Page, include_in_schema=False)

    @router.get("/new")
    def form(request: Request, visitor: Visiting, image: str = "") -> Response:
        values = {**DEFAULTS, "image": image[:200], "once": secrets.token_hex(16)}
        return _form(request, site, visitor, values)

    @router.post("/new")
    def create(request: Request, fields: Form, visitor: Visiting) -> Response:
        check_form(request, fields, visitor.csrf)
        values = {name: fields.get(name, usual) for name, usual in DEFAULTS.items()}
        values["once"] = fields.get("once", "")[:64]
        wrong = {}
        try:
            wish = new_lease(values, spans(site)).wish()
            lease = site.create(visitor.asker, wish, f"web-{values['once']}")
            return go(f"/machines/{lease.id}", "created")
        except ValidationError as error:
            wrong = {_field(each["loc"]): "" for each in error.errors()}
            return _form(request, site, visitor, values, wrong=wrong, status=400)
        except MayflyError as error:
            trouble = f"{error.message[:1].upper()}{error.message[1:]}."
            # A key stands for one wish: with another wish it would be a conflict.
            values["once"] = secrets.token_hex(16)
            status = status_of(error)
            return _form(request, site, visitor, values, trouble=trouble, status=status)

    return router


def _field(where: tuple[int | str, ...]) -> str:
    name = str(where[0]) if where else ""
    return {"for_s": "for"}.get(name, name)


def new_lease(values: Fields, offered: Mapping[str, str]) -> NewLease:
    """Give what the form asks for; raises ``ValidationError`` or ``Invalid``."""
    if values["for"] not in offered:
        raise Invalid("choose one of the times that the page offers")
    given: dict[str, Any] = {
        "image": values["image"],
        "cpus": _number(values["cpus"]),
        "memory_mib": _number(values["memory_mib"]),
        "network": values["network"],
        "name": values["name"] or None,
        "group": values["group"] or None,
        "ssh_keys": [line for line in values["ssh_keys"].split("\n") if line.strip()],
        "for_s": parse_duration(values["for"]),
    }
    return NewLease.model_validate(given)


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text


def _form(
    request: Request,
    site: Site,
    visitor: Visitor,
    values: Fields,
    *,
    status: int = 200,
    **said: Any,
) -> Response:
    images, trouble = _images(site)
    wrong = {name: WORDS[name] for name in said.get("wrong", {}) if name in WORDS}
    return render(
        request,
        "new.html",
        visitor,
        status=status,
        values=values,
        wrong=wrong,
        trouble=said.get("trouble", trouble),
        images=images,
        memories=MEMORIES,
        spans=spans(site),
        groups=visitor.asker.groups,
    )


def _images(site: Site) -> tuple[list[str], str]:
    try:
        return sorted({one.image for one in site.images()}), ""
    except MayflyError as error:
        return [], f"The images cannot be listed now: {error.message}."
