"""``mayfly image``: the disks that machines start from. One file for each group of verbs."""

from mayfly.cli.image import chunk, keep, look, make, pull, push
from mayfly.cli.image.group import image

__all__ = ["chunk", "image", "keep", "look", "make", "pull", "push"]
