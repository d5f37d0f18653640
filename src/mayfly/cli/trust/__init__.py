"""``mayfly trust``: whose images this site believes. One file for each group of verbs."""

from mayfly.cli.trust import anchors, images, look, registries, subscriptions
from mayfly.cli.trust.group import trust

__all__ = ["anchors", "images", "look", "registries", "subscriptions", "trust"]
