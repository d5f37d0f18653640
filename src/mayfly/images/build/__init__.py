"""Make images: from Debian's packages, by a recipe."""
