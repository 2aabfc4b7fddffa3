"""Score, laid out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...scorers import DIMENSIONS
from ...scorers.bulk import picture_endings
from .. import score
from ..pieces import problem
from ..working import Page, Session, told
from .parts import PRIVATE, code_blocks, safely, state_line

ALL = "the four dimensions"
NAMES = list(DIMENSIONS)


def build(page: Page) -> None:
    """Lay out the tab and connect it."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            files = gr.File(
                label="Pictures", file_count="multiple", file_types=sorted(picture_endings()), elem_id="score-files",
                height=180,
            )  # fmt: skip
            judge = gr.Dropdown([ALL, *page.models.judges], value=ALL, label="Judge")
            prompt = gr.Textbox(label="Text to compare with", info="for judges that want one, such as clip")
            with gr.Row():
                go = gr.Button("Score", variant="primary", elem_id="score-go")
                stop = gr.Button("Stop", variant="stop")
        with gr.Column(scale=3, min_width=300):
            state = state_line()
            with gr.Row():
                by = gr.Dropdown([*NAMES, "file"], value="emotional_valence", label="Sort by", elem_id="score-by")
                highest = gr.Checkbox(True, label="Highest first", elem_id="score-highest")
            table = gr.HTML(score.table(Session(), page, "file"), elem_id="score-table")
            save = gr.DownloadButton("Table as CSV", visible=False, elem_id="score-csv")
            with gr.Row():
                across = gr.Dropdown(NAMES, value="emotional_valence", label="Plot across")
                up = gr.Dropdown(NAMES, value="memorability", label="Plot up")
            plot = gr.HTML("", elem_id="score-plot")
            python, command = code_blocks(("Python", "python"), ("Command", "shell"))
    views = [by, highest, across, up]
    outputs = [state, table, plot, save, *views, python, command]
    connect(page, [files, judge, prompt], [go, stop], views, outputs)


def connect(page: Page, inputs: list[Any], buttons: list[Any], views: list[Any], outputs: list[Any]) -> None:
    """Say what happens when."""
    go, stop = buttons
    by, highest, across, up = views
    state, table, plot = outputs[:3]
    nothing = len(outputs) - 1

    def make(request: gr.Request, files: list[str] | None, judge: str, prompt: str) -> Iterator[tuple[Any, ...]]:
        session = page.sessions.of(request.session_hash)
        try:
            for said in score.run(session, page, files, None if judge == ALL else judge, prompt):
                yield said, *(gr.skip() for _ in range(nothing))
            names = session.scored.terms
            first, last = _first(names, "emotional_valence"), _first(names[1:] or names, "memorability")
            yield (
                gr.skip(), score.table(session, page, first), score.plot(session, first, last),
                gr.update(value=session.scored.csv, visible=True), gr.update(choices=[*names, "file"], value=first),
                gr.update(value=True), gr.update(choices=names, value=first), gr.update(choices=names, value=last),
                *score.codes(session, page),
            )  # fmt: skip
        except Exception as error:
            yield problem(told(error)), *(gr.skip() for _ in range(nothing))

    def end(request: gr.Request) -> None:
        page.sessions.of(request.session_hash).stop.set()

    @safely(2)
    def sort(request: gr.Request, name: str, descending: bool) -> tuple[Any, ...]:
        return gr.skip(), score.table(page.sessions.of(request.session_hash), page, name, descending)

    @safely(2)
    def draw(request: gr.Request, first: str, second: str) -> tuple[Any, ...]:
        return gr.skip(), score.plot(page.sessions.of(request.session_hash), first, second)

    go.click(make, inputs, outputs, show_progress="hidden", **PRIVATE)
    stop.click(end, [], [], queue=False, **PRIVATE)
    gr.on([by.input, highest.input], sort, [by, highest], [state, table], show_progress="hidden", **PRIVATE)
    gr.on([across.input, up.input], draw, [across, up], [state, plot], show_progress="hidden", **PRIVATE)


def _first(names: list[str], wanted: str) -> str:
    return wanted if wanted in names else names[0]
