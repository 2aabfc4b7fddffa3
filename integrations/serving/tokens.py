"""The token that a service asks for: found, or made once, and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from ..._errors import InputError

VARIABLE = "COGGUIDED_TOKEN"
SHORTEST = 16


def token_file() -> Path:
    """Return where a token is kept that was made because none was given."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "cogguided" / "token"


def find_token(file: Path | None = None) -> tuple[str, Path | None, bool]:
    """Return the token, the file that has it (None: it came from the environment), and whether it was made now.

    A file goes before the environment variable COGGUIDED_TOKEN, which goes before the file of `token_file`. A file
    that is not there is made, for its owner's eyes, with a token in it.

    Raises:
        InputError: a token of fewer than 16 characters, or with spaces; a file that cannot be read or written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made, again = find_token(Path(folder) / "token"), find_token(Path(folder) / "token")
    >>> made[0] == again[0], made[2], again[2]
    (True, True, False)
    """
    if file is None and os.environ.get(VARIABLE):
        return checked(os.environ[VARIABLE], VARIABLE), None, False
    file = file or token_file()
    try:
        if file.exists():
            return checked(file.read_text("utf-8"), str(file)), file, False
        token = secrets.token_urlsafe(32)
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(token + "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"token file {file}: {error}") from error
    return token, file, True


def checked(token: str, source: str) -> str:
    """Return a token without the space around it.

    Raises:
        InputError: too short, or not one printable word.

    >>> checked(" 0123456789abcdef ", "x")
    '0123456789abcdef'
    """
    token = token.strip()
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f"{source}: expected a token of {SHORTEST} or more printable ASCII characters, no spaces")
    return token


def digest(token: str) -> bytes:
    """Return what a service keeps of its token.

    >>> len(digest("secret"))
    32
    """
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def is_right(header: bytes | None, expected: bytes) -> bool:
    """Whether an Authorization header bears the token; takes as long for any wrong one.

    >>> is_right(b"Bearer secret", digest("secret")), is_right(b"Bearer no", digest("secret")), is_right(None, b"")
    (True, False, False)
    """
    scheme, _, given = (header or b"").partition(b" ")
    same = hmac.compare_digest(hashlib.sha256(given.strip()).digest(), expected)
    return same and scheme.lower() == b"bearer"
