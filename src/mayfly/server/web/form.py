"""Forms as browsers send them, and addresses of ours that one may be sent on to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from mayfly.errors import Invalid

FORM_BYTES = 128 * 1024
FIELDS = 64
MEDIA_TYPE = "application/x-www-form-urlencoded"

Fields = Mapping[str, str]


async def read_form(request: Request) -> Fields:
    """Read the fields of a form; raises ``Invalid`` for what no form of ours sends."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != MEDIA_TYPE:
        raise Invalid("a form was expected", hint="go back, and send the form of the page")
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > FORM_BYTES:
            raise Invalid(f"the form is larger than {FORM_BYTES} bytes")
    return parse_form(bytes(data))


def parse_form(data: bytes) -> Fields:
    """Read fields; of two with one name the last counts. Raises ``Invalid``."""
    try:
        pairs = parse_qsl(
            data.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=FIELDS,
        )
    except ValueError as error:
        raise Invalid("the form cannot be read") from error
    return {name: value.replace("\r\n", "\n").strip() for name, value in pairs}


Form = Annotated[Fields, Depends(read_form)]
"""A parameter of a route: the fields that were sent."""


def own_path(path: str, otherwise: str = "/machines") -> str:
    """Give a path of this site, whatever was sent: nobody is led away from here by a link."""
    plain = path.isascii() and path.isprintable() and "\\" not in path and len(path) < 500
    return path if plain and path.startswith("/") and not path.startswith("//") else otherwise
