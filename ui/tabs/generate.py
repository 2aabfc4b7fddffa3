"""Generate, laid out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...guidance.search.named import searches
from ...scorers import DIMENSIONS
from .. import generate
from ..pieces import PICK, SHOW, problem
from ..settings import Settings, seed_of, weights_of, whole
from ..working import Page, Session, told
from .parts import LIVE, PRIVATE, code_blocks, number_field, safely, state_line

NO_JUDGE = "none"
FEELINGS = {
    "aesthetics": "beautiful",
    "funniness": "funny",
    "emotional_valence": "happy",
    "memorability": "memorable",
}
"""What more of each dimension is, in a word."""


def controls(page: Page) -> list[Any]:
    """Lay out what can be asked for; returns the fields in the order of `settings_from`."""
    fields: list[Any] = []
    prompt = gr.Textbox(
        label="Prompt", placeholder="a face", lines=1, max_lines=4, autofocus=True, elem_id="gen-prompt"
    )
    gr.Markdown("**What people should feel**: 1 more of it, 0 does not count, −1 less of it", elem_classes="cg-note")
    with gr.Row(elem_classes="cg-sliders"):
        for name, word in FEELINGS.items():
            label = f"{name.replace('_', ' ').capitalize()} ({word})"
            start = 1.0 if name == "emotional_valence" else 0.0
            fields.append(gr.Slider(-1, 1, start, step=0.05, label=label, elem_id=f"gen-{name}", min_width=220))
    with gr.Accordion("Another judge, search, budget, seed", open=False, elem_id="gen-more"):
        with gr.Row():
            fields.append(gr.Dropdown([NO_JUDGE, *page.models.judges], value=NO_JUDGE, label="Another judge"))
            fields.append(gr.Slider(-1, 1, 0.5, step=0.05, label="Its weight"))
        with gr.Row():
            fields.append(gr.Dropdown(page.models.names, value=page.models.names[0], label="Model"))
            fields.append(gr.Dropdown(searches(), value="auto", label="Search", elem_id="gen-search"))
            fields.append(
                gr.Textbox(label="Budget", placeholder="30s or 400nfe", max_lines=1, elem_id="gen-budget")
            )
        with gr.Row():
            for label, info in (
                ("Candidates", "empty: the search's own number"),
                ("Keep", "how many of the best"),
                ("Other wordings", "empty: the search's own number"),
                ("Steps", "empty: the model's own"),
                ("Size", "pixels; empty: the model's own"),
                ("Seed", "empty: a random one"),
            ):
                fields.append(number_field(label, info, "1" if label == "Keep" else "", f"gen-{label.lower()}"))
    return [prompt, *fields]


def settings_from(page: Page, values: tuple[Any, ...]) -> Settings:
    """Return what the fields of `controls` ask for."""
    prompt, *rest = values
    sliders, (judge, weight, model, search, budget, n, keep, rewrite, steps, size, seed) = rest[:4], rest[4:]
    facts = page.models.facts()
    return Settings(
        prompt=(prompt or "").strip(),
        target=weights_of(list(FEELINGS), sliders, None if judge == NO_JUDGE else judge, weight),
        model=model,
        search=search,
        n=whole("candidates", n),
        keep=whole("keep", keep) or 1,
        rewrite=whole("other wordings", rewrite),
        steps=whole("steps", steps),
        size=whole("size", size),
        seed=seed_of(seed),
        budget=(budget or "").strip() or None,
        **facts,
    )


def build(page: Page) -> None:
    """Lay out the tab and connect it."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            fields = controls(page)
            with gr.Row():
                go = gr.Button("Generate", variant="primary", elem_id="gen-go", min_width=100)
                stop = gr.Button("Stop", variant="stop", elem_id="gen-stop", min_width=100)
        with gr.Column(scale=2, min_width=300):
            state = state_line()
            gallery = gr.HTML(generate.shown(Session(), page.pictures), js_on_load=PICK, elem_id="gen-gallery")
            details = gr.HTML("", html_template=LIVE, js_on_load=SHOW, elem_id="gen-details")
            with gr.Column(visible=False) as more:
                dimension = gr.Dropdown(
                    list(DIMENSIONS), value="emotional_valence", label="What the judge itself believes of it, in",
                    elem_id="gen-dimension",
                )  # fmt: skip
                belief = gr.HTML("", elem_id="gen-belief")
                with gr.Row():
                    vary = gr.Button("Variations of it", elem_id="gen-vary")
                    save = gr.DownloadButton("Download with its record", elem_id="gen-save")
            python, command = code_blocks(("Python", "python"), ("Command", "shell"))
    outputs = [state, gallery, details, more, python, command]
    connect(page, fields, [go, stop, vary], outputs, [dimension, belief, save])


def connect(page: Page, fields: list[Any], buttons: list[Any], outputs: list[Any], chosen: list[Any]) -> None:
    """Say what happens when."""
    go, stop, vary = buttons
    state, gallery, details, more, _, _ = outputs
    dimension, belief, save = chosen

    def stream(session: Session, settings: Settings) -> Iterator[tuple[Any, ...]]:
        yield gr.skip(), gr.skip(), "", gr.update(visible=False), *generate.codes(settings, None)
        for said, _ in generate.run(session, page, settings):
            shown = generate.shown(session, page.pictures)
            folder = None if session.folder is None else page.told(session.folder)
            yield said, shown, gr.skip(), gr.skip(), *generate.codes(settings, folder)

    def make(request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            yield from stream(page.sessions.of(request.session_hash), settings_from(page, values))
        except Exception as error:
            yield problem(told(error)), *(gr.skip() for _ in range(5))

    def make_variations(request: gr.Request) -> Iterator[tuple[Any, ...]]:
        session = page.sessions.of(request.session_hash)
        try:
            yield from stream(session, generate.varied(session))
        except Exception as error:
            yield problem(told(error)), *(gr.skip() for _ in range(5))

    def end(request: gr.Request) -> None:
        session = page.sessions.of(request.session_hash)
        if session.work is not None:
            session.work.stop()

    @safely(6)
    def choose(dimension: str, request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        session = page.sessions.of(request.session_hash)
        generate.pick(session, int(event.index))
        about = generate.details(session, page.models, page.pictures)
        drawn = generate.belief(session, page.models, dimension)
        file = generate.file_of(session)
        shown = generate.shown(session, page.pictures)
        return gr.skip(), shown, about, gr.update(visible=file is not None), drawn, gr.update(value=file)

    @safely(2)
    def look(dimension: str, request: gr.Request) -> tuple[Any, ...]:
        return gr.skip(), generate.belief(page.sessions.of(request.session_hash), page.models, dimension)

    work: dict[str, Any] = {**PRIVATE, "outputs": outputs, "show_progress": "hidden", "concurrency_limit": 4}
    gr.on([go.click, fields[0].submit], make, fields, **work)
    vary.click(make_variations, [], **work)
    stop.click(end, [], [], queue=False, **PRIVATE)
    picked = [state, gallery, details, more, belief, save]
    gallery.select(choose, [dimension], picked, show_progress="hidden", **PRIVATE)
    dimension.input(look, [dimension], [state, belief], show_progress="hidden", **PRIVATE)
