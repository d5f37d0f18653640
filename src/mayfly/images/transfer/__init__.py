"""Bring whole files here: by HTTP(S), or from a directory that hosts share."""
