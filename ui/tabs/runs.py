"""Runs, laid out."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .. import runs
from ..pieces import empty
from ..working import Page
from .parts import PRIVATE, safely, state_line


def build(page: Page) -> None:
    """Lay out the tab and connect it."""
    info = f"folders of {page.told(page.out)} and below, the latest first"
    with gr.Row():
        which = gr.Dropdown(choices(page), value=None, label="Run", info=info, elem_id="runs-which", scale=4)
        again = gr.Button("Look again", elem_id="runs-again", scale=1, min_width=120)
    state = state_line()
    command = gr.Code(
        "", language="shell", label="To go on with it", interactive=False, wrap_lines=True, elem_id="runs-command"
    )
    report = gr.HTML(empty("Choose a run to see its report."), elem_id="runs-report")
    files = gr.File(label="Its files", file_count="multiple", interactive=False, visible=False, elem_id="runs-files")

    def look() -> Any:
        return gr.update(choices=choices(page))

    @safely(4)
    def show(name: str | None) -> tuple[Any, ...]:
        if name is None:
            return "", "", empty("Choose a run to see its report."), gr.update(visible=False)
        run = runs.choose(page.out, name)
        found = gr.update(value=runs.files_of(page.out, run), visible=True)
        return "", runs.how_to_go_on(run, page), runs.view(page.out, run), found

    again.click(look, [], [which], **PRIVATE)
    which.focus(look, [], [which], show_progress="hidden", **PRIVATE)
    which.input(show, [which], [state, command, report, files], show_progress="hidden", **PRIVATE)


def choices(page: Page) -> list[tuple[str, str]]:
    """Return the runs there are, by title and folder."""
    return [(run.title, str(run.folder)) for run in runs.find(page.out)]
