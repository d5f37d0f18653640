"""Decides which workers to start, keep, drain and give back: pure functions over frozen values."""
