"""A container image becomes a machine image: its files, our kernel, and a first process of ours."""
