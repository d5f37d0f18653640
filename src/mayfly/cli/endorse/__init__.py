"""``mayfly endorse``: vouch for images. One file for each group of verbs."""

from mayfly.cli.endorse import image, key, lists
from mayfly.cli.endorse.group import endorse

__all__ = ["endorse", "image", "key", "lists"]
