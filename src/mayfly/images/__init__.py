"""Images: catalogue, build and import."""
