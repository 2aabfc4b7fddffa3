"""What no request may do: read a file outside the output folder, or have the server fetch from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .models import inside

FILE, FOREIGN = "/file=", "/proxy="


class Guard:
    """ASGI middleware in front of Gradio, which follows links and fetches addresses where it is asked to.

    Args:
        app: what is guarded.
        folder: the one folder whose files may be read, links followed.
    """

    def __init__(self, app: Any, folder: Path) -> None:
        self.app, self.folder = app, folder

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http" and not self.allows(scope["path"]):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"not in the output folder"})
            return
        await self.app(scope, receive, send)

    def allows(self, path: str) -> bool:
        """Whether a request for a path may be answered.

        >>> guard = Guard(None, Path("/tmp/out"))
        >>> guard.allows("/gradio_api/file=/tmp/out/a.png"), guard.allows("/gradio_api/file=/etc/passwd")
        (True, False)
        """
        if FOREIGN in path:
            return False
        for mark in (FILE, "/file/"):
            _, found, rest = path.partition(mark)
            if found and not all(self._is_mine(text) for text in {rest, unquote(rest)}):
                return False
        return True

    def _is_mine(self, text: str) -> bool:
        return "://" not in text and "\0" not in text and inside(self.folder, Path(text))
