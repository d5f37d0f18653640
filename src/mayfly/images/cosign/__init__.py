"""Signatures of images in registries, as ``cosign sign --key`` makes them."""
