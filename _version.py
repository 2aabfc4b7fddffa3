"""The version, where nothing else is."""

__version__ = "0.1.0"
