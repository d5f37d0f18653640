"""``mayfly image``: the disks that machines start from. One file for each group of verbs."""

from mayfly.cli.image import chunk, find, keep, look, make, pull, push, save, trial
from mayfly.cli.image.group import image

__all__ = ["chunk", "find", "image", "keep", "look", "make", "pull", "push", "save", "trial"]
