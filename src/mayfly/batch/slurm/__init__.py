"""Slurm: the plugin, and the programs that it and the epilog call."""
