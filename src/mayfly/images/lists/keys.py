"""The keys of the HEPiX format, and which field each of them is."""

from __future__ import annotations

WRAPPER = "hv:imagelist"
ENDORSER = "hv:endorser"
X509 = "hv:x509"
IMAGES = "hv:images"
IMAGE = "hv:image"
CREATED = "dc:date:created"
EXPIRES = "dc:date:expires"
IDENTIFIER = "dc:identifier"
SIZE = "hv:size"
SHA512 = "sl:checksum:sha512"
ENDORSEMENT = "mayfly:endorsement"
"""Ours: the image endorser's signed word; other readers pass over it."""
REVOKED = "mayfly:revoked"
"""Ours: what was taken back, and why; other readers pass over it."""

LIST_TEXT = {
    "hv:version": "version",
    "dc:title": "title",
    "dc:description": "description",
    "dc:source": "source",
    "hv:uri": "uri",
}
ENDORSER_TEXT = {"hv:dn": "dn", "hv:ca": "ca", "hv:email": "email", "dc:creator": "creator"}
IMAGE_TEXT = {
    "hv:version": "version",
    "dc:title": "title",
    "dc:description": "description",
    "hv:uri": "uri",
    "sl:arch": "arch",
    "sl:os": "os",
    "sl:osversion": "os_version",
    "sl:comments": "comments",
    "hv:hypervisor": "hypervisor",
}
"""All of them must be there; AppDB leaves some empty."""
FORMAT = "hv:format"

LIST_REQUIRED = frozenset({*LIST_TEXT, CREATED, EXPIRES, IDENTIFIER, ENDORSER, IMAGES})
IMAGE_REQUIRED = frozenset({*IMAGE_TEXT, IDENTIFIER, SIZE, SHA512})
ENDORSER_REQUIRED = frozenset(ENDORSER_TEXT)
