"""Answers as EC2's XML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from xml.sax.saxutils import escape

from mayfly.ec2.fault import Fault

Value = str | int | bool | datetime | None | Sequence["Value"] | Mapping[str, "Value"]
Answer = dict[str, Value]

NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What a document of XML 1.0 cannot hold, not even escaped."""

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def write_answer(action: str, version: str, request: str, answer: Answer) -> bytes:
    """Give the document of an action that went well; ``None`` is left out, a list has items."""
    head = f'<{action}Response xmlns="http://ec2.amazonaws.com/doc/{version}/">'
    inside = "".join(_element(name, value) for name, value in answer.items())
    text = f"{_HEAD}{head}{_element('requestId', request)}{inside}</{action}Response>\n"
    return text.encode()


def write_fault(fault: Fault, request: str) -> bytes:
    """Give the document of one that did not."""
    error = _element("Error", {"Code": fault.code, "Message": fault.message})
    inside = f"<Errors>{error}</Errors>{_element('RequestID', request)}"
    return f"{_HEAD}<Response>{inside}</Response>\n".encode()


def _element(name: str, value: Value) -> str:
    if value is None:
        return ""
    return f"<{name}>{_content(value)}</{name}>"


def _content(value: Value) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            # A carriage return would be read back as a line feed.
            return escape(NOT_XML.sub("\ufffd", value), {"\r": "&#13;"})
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        case Mapping():
            return "".join(_element(name, each) for name, each in value.items())
        case Sequence():
            return "".join(_element("item", each) for each in value)
        case _:
            return str(value)
