"""Models are loaded by one thread at a time: transformers and diffusers change what all threads see meanwhile."""

from __future__ import annotations

import threading

LOADING = threading.RLock()
"""Held while a generator or a scorer is loaded; two at once lose weights, and one says that they are missing."""
