"""Trust in images: signed HEPiX image lists, who may sign them, and what that says of an image."""
