"""Judges by name: one file each."""
