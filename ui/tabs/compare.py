"""Compare, laid out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from ...guidance.search.named import searches
from .. import compare
from ..models import ORIGINAL
from ..pieces import empty, problem
from ..settings import Settings, seed_of, weights_of, whole
from ..working import Page, told
from .generate import FEELINGS
from .parts import LIVE, PRIVATE, code_blocks, number_field, safely, state_line

FIELDS = 6
"""Of a side."""


def side_fields(page: Page, name: str) -> list[Any]:
    """Lay out what one side is; returns model, text encoder, strength, search, candidates, steps."""
    models = page.models
    gr.Markdown(f"### {name}")
    return [
        gr.Dropdown(models.names, value=models.names[0 if name == "A" else -1], label=f"Model of {name}"),
        gr.Dropdown(models.encoders, value=models.encoders[-(name == "B")], label=f"Text encoder of {name}"),
        gr.Slider(-1, 2, 1.0, step=0.05, label=f"Strength of {name}'s text encoder"),
        gr.Dropdown(searches(), value="best_of_n", label=f"Search of {name}"),
        number_field(f"Candidates of {name}", None, "1" if name == "A" else "4", f"cmp-n-{name.lower()}"),
        number_field(f"Steps of {name}", "empty: the model's own", elem_id=f"cmp-steps-{name.lower()}"),
    ]


def build(page: Page) -> None:
    """Lay out the tab and connect it."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            prompts = gr.Textbox(
                label="Prompts, one a line", lines=3, max_lines=8, placeholder="a face\na cat", elem_id="cmp-prompts"
            )
            feeling = gr.Dropdown(list(FEELINGS), value="emotional_valence", label="People should feel more of")
            with gr.Row():
                repeats = number_field("Pairs per prompt", "their seeds differ", "1", "cmp-pairs")
                seed = number_field("Seed", "empty: a random one", elem_id="cmp-seed")
            with gr.Row():
                with gr.Column(min_width=140):
                    first = side_fields(page, "A")
                with gr.Column(min_width=140):
                    second = side_fields(page, "B")
            with gr.Row():
                go = gr.Button("Make pairs", variant="primary", elem_id="cmp-go")
                stop = gr.Button("Stop", variant="stop")
        with gr.Column(scale=1, min_width=300):
            state = state_line()
            ballot = gr.HTML(
                empty("Pairs of A and B come here in random order, blinded: which is which is told after the vote."),
                html_template=LIVE, elem_id="cmp-ballot",
            )  # fmt: skip
            with gr.Column(visible=False) as voting:
                with gr.Row():
                    votes = [
                        gr.Button(text, elem_id=f"cmp-{choice}", min_width=90)
                        for choice, text in (("left", "Left"), ("neither", "No difference"), ("right", "Right"))
                    ]
                person = gr.Textbox(label="Your name", info="optional; part of the file's name", elem_id="cmp-person")
                reveal = gr.Button("Show which is which", elem_id="cmp-reveal")
            sheet = gr.HTML("", elem_id="cmp-sheet")
            save = gr.DownloadButton("Download the vote", visible=False, elem_id="cmp-save")
            python, command = code_blocks(("Python", "python"), ("Command that counts votes", "shell"))
    outputs = [state, ballot, voting, sheet, save, python, command]
    connect(page, [prompts, feeling, repeats, seed, *first, *second], [go, stop, reveal, *votes], person, outputs)


def sides_from(page: Page, feeling: str, seed: Any, values: tuple[Any, ...]) -> dict[str, compare.Side]:
    """Return the two sides that the fields ask for."""
    first = seed_of(seed)
    found = {}
    for name, mine in (("A", values[:FIELDS]), ("B", values[FIELDS:])):
        model, encoder, strength, search, n, steps = mine
        settings = Settings(
            "prompt", weights_of([feeling], [1.0], None, None), first, model, search=search,
            n=whole(f"candidates of {name}", n), steps=whole(f"steps of {name}", steps), **page.models.facts(),
        )  # fmt: skip
        found[name] = compare.Side(settings, encoder, 1.0 if encoder == ORIGINAL else float(strength))
    return found


def connect(page: Page, fields: list[Any], buttons: list[Any], person: Any, outputs: list[Any]) -> None:
    """Say what happens when."""
    go, stop, reveal, *votes = buttons
    def make(request: gr.Request, texts: str, feeling: str, repeats: Any, seed: Any, *values: Any) -> Iterator[Any]:
        session = page.sessions.of(request.session_hash)
        hidden = gr.update(visible=False)
        try:
            sides = sides_from(page, feeling, seed, values)
            prompts = compare.read_prompts(texts)
            folder = page.out / f"{time.strftime('%Y%m%d-%H%M%S')}-compare"
            yield gr.skip(), "", hidden, "", hidden, "", ""
            for said in compare.run(session, page, sides, prompts, whole("pairs", repeats) or 1, folder):
                yield said, *(gr.skip() for _ in range(6))
            if session.compared is not None:
                shown = compare.ballot(session.compared, page.pictures)
                yield gr.skip(), shown, gr.update(visible=True), "", hidden, "", ""
        except Exception as error:
            yield problem(told(error)), *(gr.skip() for _ in range(6))

    def end(request: gr.Request) -> None:
        session = page.sessions.of(request.session_hash)
        if session.work is not None:
            session.work.stop()

    @safely(7)
    def opened(request: gr.Request) -> tuple[Any, ...]:
        compared = page.sessions.of(request.session_hash).compared
        both = compare.side_by_side(compared, page.pictures)
        return gr.skip(), "", gr.update(visible=False), both, gr.skip(), *compare.codes(compared, page)

    def taker(choice: str) -> Any:
        @safely(7)
        def take(name: str, request: gr.Request) -> tuple[Any, ...]:
            compared = page.sessions.of(request.session_hash).compared
            file = compare.vote(compared, choice, name)
            kept = gr.update(value=file, visible=True)
            if compared.open_pair is not None:
                return gr.skip(), compare.ballot(compared, page.pictures), gr.skip(), "", kept, gr.skip(), gr.skip()
            both = compare.side_by_side(compared, page.pictures)
            said = compare.result(compared, file)
            return said, "", gr.update(visible=False), both, kept, *compare.codes(compared, page)

        return take

    go.click(make, fields, outputs, show_progress="hidden", **PRIVATE)
    stop.click(end, [], [], queue=False, **PRIVATE)
    reveal.click(opened, [], outputs, show_progress="hidden", **PRIVATE)
    for button, choice in zip(votes, ("left", "neither", "right"), strict=True):
        button.click(taker(choice), [person], outputs, show_progress="hidden", **PRIVATE)
