"""The images of this host: what is known of each, its names and versions, and what keeps it."""

from mayfly.images.catalogue.directory import (
    DISK,
    Catalogue,
    Draft,
    Existing,
    check,
    check_name,
)

__all__ = ["DISK", "Catalogue", "Draft", "Existing", "check", "check_name"]
