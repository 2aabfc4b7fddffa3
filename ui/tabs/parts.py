"""What the tabs lay out alike."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gradio as gr

from ..pieces import problem
from ..working import Page, told

LIVE = '<div aria-live="polite">${value}</div>'
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
"""Of every event: the page is no API."""


def state_line() -> gr.HTML:
    """Return where work says how it is, which a screen reader reads aloud."""
    return gr.HTML("", html_template=LIVE, elem_classes="cg-state")


def number_field(label: str, info: str | None, value: str = "", elem_id: str | None = None) -> gr.Textbox:
    """Return a field for a whole number that may be left empty, as Gradio's own may not."""
    return gr.Textbox(value, label=label, info=info, max_lines=1, min_width=130, elem_id=elem_id)


def code_blocks(*languages: tuple[str, str]) -> list[gr.Code]:
    """Return read-only code to copy, behind one heading."""
    with gr.Accordion("The same in Python, and as a command", open=False, elem_classes="cg-code"):
        return [
            gr.Code("", language=language, label=label, interactive=False, wrap_lines=True)
            for label, language in languages
        ]


def safely(count: int, place: int = 0) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn an error of an event into a sentence at one of its `count` outputs, leaving the others as they are."""

    def wrap(event: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(event)
        def run(*args: Any, **kwargs: Any) -> Any:
            try:
                return event(*args, **kwargs)
            except Exception as error:
                found: list[Any] = [gr.skip() for _ in range(count)]
                found[place] = problem(told(error))
                return found[0] if count == 1 else tuple(found)

        return run

    return wrap


def forgetting(page: Page) -> Callable[[gr.Request], None]:
    """Return what stops the work of a page that is closed, and drops what it made."""

    def forget(request: gr.Request) -> None:
        page.sessions.end(request.session_hash)

    return forget
