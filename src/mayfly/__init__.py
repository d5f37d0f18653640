"""Mayfly: every job gets a virtual machine of its own, for as long as the job lives."""

__version__ = "0.1.0"
