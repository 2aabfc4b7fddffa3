"""Every error that cogguided raises on purpose.

::

    CogGuidedError
    ├── InputError          a bad argument                                       (also a ValueError)
    │   ├── ImageError          an image that cannot be read; names the file
    │   └── UnknownNameError    a name nobody registered; lists the nearest ones
    ├── ModelError          a model or checkpoint that does not fit               (also a ValueError)
    │   └── BatchError          a pipeline whose call fails on several images at once
    ├── MissingExtraError   an optional dependency is absent; names the extra     (also an ImportError)
    ├── RecordError         a saved record or folder that cannot be read          (also a ValueError)
    ├── GenerationError     nothing could be made or chosen                       (also a RuntimeError)
    ├── ScoringError        a scorer failed on images                             (also a RuntimeError)
    └── TrainingError       training cannot go on                                 (also a RuntimeError)

Catch ``CogGuidedError`` for all of them, or the built-in class beside it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class CogGuidedError(Exception):
    """The root of every deliberate error of this package."""


class InputError(CogGuidedError, ValueError):
    """An argument that cannot be used as it is."""


class ImageError(InputError):
    """An image that cannot be read; the message names the file where there is one."""


class UnknownNameError(InputError):
    """A name that is not known; the message lists near matches. Built by `unknown_name`."""


class ModelError(CogGuidedError, ValueError):
    """A model or checkpoint that does not fit what it was given for."""


class BatchError(ModelError):
    """A pipeline's call fails on several prompts at once; one at a time may work."""


class MissingExtraError(CogGuidedError, ImportError):
    """An optional dependency is not installed. Built by `missing_extra`."""


class RecordError(CogGuidedError, ValueError):
    """A saved record or folder that cannot be read, or that does not match what it is used with."""


class GenerationError(CogGuidedError, RuntimeError):
    """Images could not be made, or none of them chosen; `output` has what was made up to then, or is None.

    `complete`: all that was asked for was made; but a prompt has no image with a valid score.
    """

    def __init__(self, message: str, output: Any = None, complete: bool = False) -> None:
        super().__init__(message)
        self.output = output
        self.complete = complete


class ScoringError(CogGuidedError, RuntimeError):
    """A scorer raised something of its own; the message names the files."""


class TrainingError(CogGuidedError, RuntimeError):
    """Training cannot go on; the message says what to try."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that is not known, with the exact spelling to type instead.

    >>> print(unknown_name("scorer", "memorabilty", ["clip", "memorability"]))
    unknown scorer 'memorabilty': did you mean 'memorability'? Known: 'clip', 'memorability'.
    >>> print(unknown_name("dimension", "", []))
    unknown dimension '': none is known.
    """
    names = sorted(known)
    if not names:
        return UnknownNameError(f"unknown {kind} {name!r}: none is known.")
    by_folded = {candidate.casefold(): candidate for candidate in names}
    near = [by_folded[match] for match in difflib.get_close_matches(str(name).casefold(), by_folded, n=3)]
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return UnknownNameError(f"unknown {kind} {name!r}: {hint}Known: {', '.join(map(repr, names))}.")


def missing_extra(package: str, extra: str) -> MissingExtraError:
    """Build the error for an optional dependency that is not installed.

    >>> print(missing_extra("scipy", "embedded"))
    'scipy' is not installed; type: pip install "cogguided[embedded]"
    """
    return MissingExtraError(f"'{package}' is not installed; type: pip install \"cogguided[{extra}]\"")
