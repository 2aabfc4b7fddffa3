"""The page as a whole: tabs, look, and what it must not do."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._errors import InputError, missing_extra
from .guard import Guard
from .models import Models
from .pieces import Pictures
from .working import LONGEST_END, Page, logger

LARGEST_UPLOAD = "32mb"
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_SHARE": "False"}


def read_auth(text: str) -> list[tuple[str, str]]:
    """Return names and passwords of "name:password", several with commas between.

    Raises:
        InputError: another form; the sentence does not repeat what was given.

    >>> read_auth("anna:secret,ben:other")
    [('anna', 'secret'), ('ben', 'other')]
    """
    found = []
    for part in text.split(","):
        name, colon, password = part.partition(":")
        if not name or not colon or not password:
            raise InputError("--auth: expected name:password, several with commas between")
        found.append((name, password))
    return found


@contextmanager
def served(
    models: Models,
    out: Path,
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: list[tuple[str, str]] | None = None,
    preload: bool = True,
) -> Iterator[str]:
    """Serve the page while inside; yields its address.

    Args:
        models: that may be used.
        out: output folder; made if it is not there. Nothing outside it can be fetched.
        host: address to listen on.
        port: to listen on; None: the first free one from 7860.
        auth: names and passwords; None: whoever reaches the page may use it.
        preload: load the first model in the background.

    Raises:
        MissingExtraError: Gradio is not installed.
        InputError: the port is taken.
    """
    out.mkdir(parents=True, exist_ok=True)
    typed, out = out, out.resolve()
    cache = Path(tempfile.mkdtemp(prefix=".cogguided-ui-", dir=out))
    before = {name: os.environ.get(name) for name in (*QUIET, "GRADIO_TEMP_DIR")}
    os.environ.update(QUIET, GRADIO_TEMP_DIR=str(cache / "uploads"))
    blocks: Any = None
    loading = threading.Thread(target=warm, args=(models,), daemon=True)
    page = Page(models, out, Pictures(cache / "pictures"), typed)
    try:
        blocks = build(page)
        address = launch(blocks, out, host, port, auth)
        if preload:
            loading.start()
        yield address
    finally:
        if loading.is_alive():
            loading.join(LONGEST_END)  # Python cannot end while torch is at work in a thread
        page.sessions.close()
        if blocks is not None:
            blocks.close(verbose=False)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        shutil.rmtree(cache, ignore_errors=True)


def warm(models: Models) -> None:
    """Load the first model; an error is told when it is asked for."""
    try:
        models.warm()
    except Exception as error:
        logger.warning("%s", error)


def build(page: Page) -> Any:
    """Lay out the page.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise missing_extra("gradio", "ui") from error
    from .tabs import TABS
    from .tabs.parts import forgetting

    with gr.Blocks(title="cogguided", analytics_enabled=False, delete_cache=(3600, 86400)) as blocks:
        gr.Markdown("# cogguided\nImages that are judged as people feel.", elem_id="cg-head")
        with gr.Tabs(overflow_behavior="wrap"):
            for name, lay_out in TABS.items():
                with gr.Tab(name, id=name.lower()):
                    lay_out(page)

        blocks.unload(forgetting(page))
    return blocks


def launch(blocks: Any, out: Path, host: str, port: int | None, auth: list[tuple[str, str]] | None) -> str:
    """Start the server in the background; returns its address.

    Raises:
        InputError: the port is taken.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    theme = gr.themes.Base(primary_hue="blue", font=FONTS, font_mono=MONO).set(
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300",
    )  # fmt: skip
    blocks.queue(default_concurrency_limit=4, max_size=64)
    try:
        _, address, _ = blocks.launch(
            server_name=host, server_port=port, auth=auth, allowed_paths=[str(out)], max_file_size=LARGEST_UPLOAD,
            share=False, inbrowser=False, prevent_thread_lock=True, quiet=True, show_error=True, footer_links=[],
            run_history=False, enable_monitoring=False, ssr_mode=False, pwa=False, mcp_server=False, theme=theme,
            css_paths=[Path(__file__).with_name("style.css")],
            app_kwargs={"middleware": [Middleware(Guard, folder=out)], "docs_url": None, "redoc_url": None},
        )  # fmt: skip
    except OSError as error:
        where = f"{host}:{port}" if port else host
        raise InputError(
            f"cannot listen on {where}: the port is taken, or it is no address of this machine; choose another "
            "--port or --host"
        ) from error
    return str(address)
