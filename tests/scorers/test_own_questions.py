"""Questions of the user's own, answered by a word or a number, beside plain runs of the model token by token."""

import json
import math

import numpy as np
import pytest
import torch
from marked import EACH
from PIL import Image
from typer.testing import CliRunner

from cogguided._cli.app import app
from cogguided._errors import InputError, ModelError, UnknownNameError
from cogguided.scorers import load_scorer, load_target
from cogguided.scorers.images import to_tensor
from cogguided.scorers.mllm.answer_tree import word_tree
from cogguided.scorers.mllm.checkpoints import ScorerFacts
from cogguided.scorers.mllm.options import ReadOptions
from cogguided.scorers.mllm.reading.templates import choose
from cogguided.scorers.mllm.reading.words import spellings, tree_of
from cogguided.scorers.mllm.readout import AnswerSearch
from cogguided.scorers.mllm.scorer import MLLMScorer

LEVELS = {"excellent": 5, "good": 4, "medium": 3, "low": 2, "very low": 1}
PROMPTS = ["a low picture", "very high", "a positive picture of a very high neutral medium"]
SHOWS = 'Does this show "{}"?'
FOLDED = {tuple(spellings(word)): value for word, value in LEVELS.items()}


def plain_run(scorer, inputs, tokens):
    """Log probabilities of what follows image and question, and each of the answer's tokens after them."""
    inputs = dict(inputs)
    added = {"input_ids": torch.tensor([tokens]), "attention_mask": torch.ones(1, len(tokens), dtype=torch.long)}
    for key in ("token_type_ids", "mm_token_type_ids"):
        added[key] = torch.zeros(1, len(tokens), dtype=torch.long)
    for key, more in added.items():
        if key in inputs:
            inputs[key] = torch.cat([inputs[key], more], dim=1)
    if "cross_attention_mask" in inputs:
        last = inputs["cross_attention_mask"][:, -1:]
        inputs["cross_attention_mask"] = torch.cat(
            [inputs["cross_attention_mask"], last.expand(-1, len(tokens), -1, -1)], dim=1
        )
    return scorer.model(**inputs, use_cache=False).logits[0, -len(tokens) - 1 :].double().log_softmax(-1)


def probability(scorer, inputs, word):
    """Of a word as the beginning of the answer."""
    tokens = scorer.processor.tokenizer(word, add_special_tokens=False)["input_ids"]
    return math.exp(plain_run(scorer, inputs, tokens)[range(len(tokens)), tokens].sum())


def reference(scorer, shown, text, words):
    """Mean, spread and mass of {(spellings): value}."""
    inputs = scorer.core.prepare([shown], text)
    with torch.no_grad():
        shares = [sum(probability(scorer, inputs, word) for word in of) for of in words]
    mass, values = sum(shares), list(words.values())
    mean = sum(p * v for p, v in zip(shares, values, strict=True)) / mass
    return mean, math.sqrt(sum(p * (v - mean) ** 2 for p, v in zip(shares, values, strict=True)) / mass), mass


YES_NO = {("Yes", "yes", "YES"): 1.0, ("No", "no", "NO"): 0.0}


@pytest.fixture(scope="module")
def facts_folder(model_folder, tmp_path_factory):
    """A folder that names a family's model and has three questions of its own, as a user would write it."""

    def get(family):
        folder = tmp_path_factory.mktemp(f"own {family}")
        templates = {
            "fine": {"readout": "levels", "question": "How fine?", "levels": LEVELS},
            "shows": {"readout": "yes_no", "question": SHOWS},
            "sharp": {"question": "How sharp, 0 to 1?", "low": 0, "high": 1},
        }
        facts = {"name": "own", "model": str(model_folder(family)), "dimensions": [], "templates": templates}
        (folder / "cogguided_scorer.json").write_text(json.dumps(facts))
        return folder

    return get


@pytest.mark.parametrize("family", EACH)
def test_words_are_read_as_plain_runs_say_on_one_look(family, facts_folder, pictures):
    scorer = load_scorer(facts_folder(family), min_mass=0.0)
    assert (scorer.name, scorer.readout, scorer.low, scorer.high) == ("fine", "levels", 1.0, 5.0)
    looks = []
    hook = scorer.model.get_decoder().register_forward_hook(lambda *_: looks.append(1))
    pictures = pictures[:2]
    found = scorer.score_all(pictures, ["fine", "shows"], PROMPTS[:2])
    hook.remove()
    assert 2 <= len(looks) <= 6, "image and prompt once, the answers to all questions, and cases that matter"
    for row, (picture, prompt) in enumerate(zip(pictures, PROMPTS[:2], strict=True)):
        for name, text, words in (
            ("fine", "How fine?", FOLDED),
            ("shows", SHOWS.format(prompt), YES_NO),
        ):
            scores = found[name]
            mean, std, mass = reference(scorer, picture, text, words)
            span = max(words.values()) - min(words.values())
            assert scores.values[row].item() == pytest.approx(mean, abs=1e-4 * span)
            assert scores.std[row].item() == pytest.approx(std, abs=2e-4 * span)
            assert scores.mass[row].item() == pytest.approx(mass, rel=1e-3)
            alone = scorer.with_dimension(name)([picture], [prompt])
            assert scores.values[row].item() == pytest.approx(alone.values.item(), abs=1e-4 * span)
            assert scores.labels[row] in [*LEVELS, "Yes", "No"]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3", "mllama"])
def test_the_gradient_is_that_of_finite_differences(family, facts_folder):
    scorer = load_scorer(facts_folder(family), min_mass=0.0)
    scorer.model.double()
    pixels = np.random.default_rng(1).integers(20, 235, (2, 3, 40, 60))
    start = torch.from_numpy(pixels).float() / 255
    images = start.clone().requires_grad_()
    answers = scorer.score_all(images, ["fine", "shows"], PROMPTS[:2])
    gradients = {n: torch.autograd.grad(s.values.sum(), images, retain_graph=True)[0] for n, s in answers.items()}
    for row in range(2):
        for name, text, words in (
            ("fine", "How fine?", FOLDED),
            ("shows", SHOWS.format(PROMPTS[row]), YES_NO),
        ):
            assert answers[name].values[row].item() == pytest.approx(
                reference(scorer, Image.fromarray((start[row] * 255).round().byte().permute(1, 2, 0).numpy()),
                          text, words)[0], abs=1e-4)  # fmt: skip
            gradient = gradients[name][row]
            assert gradient.abs().max() > 0
            step = 3e-4 * gradient / gradient.abs().max()
            up, down = (reference(scorer, start[row] + s, text, words)[0] for s in (step, -step))
            assert (up - down) / 2 == pytest.approx(float((gradient * step).sum()), rel=0.05)


def test_a_word_that_another_goes_on_from(model_folder, pictures):
    """"1" is as probable as "1" without "10" after it, in value and in gradient."""
    words = {str(number): number for number in range(1, 11)}
    scorer = load_scorer(
        "mllm", model=model_folder("qwen2_5_vl"), question="1 to 10?", readout="levels", levels=words, min_mass=0.0
    )
    assert (scorer.low, scorer.high, scorer.name) == (1.0, 10.0, "levels")

    def mean_and_mass(shown):
        inputs = scorer.core.prepare([shown], "1 to 10?")
        with torch.no_grad():
            of = {word: probability(scorer, inputs, word) for word in words}
        of["1"] -= of["10"]
        return sum(p * words[word] for word, p in of.items()) / sum(of.values()), sum(of.values())

    scorer.model.double()
    images = to_tensor(pictures[:1]).requires_grad_()
    scores = scorer(images)
    mean, mass = mean_and_mass(pictures[0])
    assert scores.values.item() == pytest.approx(mean, abs=1e-4 * 9)
    assert scores.mass.item() == pytest.approx(mass, rel=1e-4)
    (gradient,) = torch.autograd.grad(scores.values.sum(), images)
    step = 3e-4 * gradient / gradient.abs().max()
    up, down = (mean_and_mass(images.detach()[0] + s[0])[0] for s in (step, -step))
    assert (up - down) / 2 == pytest.approx(float((gradient * step).sum()), rel=0.05)


def test_labels_of_a_dimension_are_levels_too(model_folder, pictures):
    scorer = load_scorer("aesthetics", model=model_folder("mllama"), readout="levels", min_mass=0.0)
    middles = {"very low": 1.75, "low": 4.25, "medium": 5.75, "high": 7.25, "very high": 9.0}
    mean, _, _ = reference(
        scorer, pictures[0], "aesthetics?", {tuple(spellings(word)): value for word, value in middles.items()}
    )
    both = scorer.score_readouts(pictures[:1], ["aesthetics"], ["levels", "expected"])
    assert both["levels"]["aesthetics"].values.item() == pytest.approx(mean, abs=1e-3)
    scorer.readout = "expected"
    torch.testing.assert_close(both["expected"]["aesthetics"].values, scorer(pictures[:1]).values)


def test_a_number_on_a_scale_of_ones_own(facts_folder, pictures):
    """Without a label: "0." and three digits, which are one token here, or "1.000"."""
    scorer = load_scorer(facts_folder("mllama"), dimension="sharp", min_mass=0.0)
    assert scorer.readout == "expected"
    numbers = [f"{k / 1000:.3f}" for k in range(1000)]
    ids = scorer.processor.tokenizer(numbers, add_special_tokens=False)["input_ids"]
    zero, point, _ = ids[0]
    assert all(tokens[:2] == [zero, point] and len(tokens) == 3 for tokens in ids)
    inputs = scorer.core.prepare(pictures[:1], "How sharp, 0 to 1?")
    with torch.no_grad():
        found = plain_run(scorer, inputs, [zero, point])
        begun = found[0, zero] + found[1, point]
        shares = torch.stack([begun + found[2, last] for _, _, last in ids]).exp().tolist()
        shares.append(probability(scorer, inputs, "1.000"))
    mean = sum(share * k / 1000 for k, share in enumerate(shares)) / sum(shares)
    scores = scorer(pictures)
    assert scores.values[0].item() == pytest.approx(mean, abs=1e-3)
    assert scores.mass[0].item() == pytest.approx(sum(shares), rel=1e-2)
    assert scores.labels == [None] * 3
    greedy = MLLMScorer(scorer.core, "sharp", ReadOptions("greedy"))
    assert greedy(pictures[:1]).num_invalid == 1
    singles = torch.cat([scorer([picture]).values for picture in pictures])
    torch.testing.assert_close(scores.values, singles, atol=1e-4, rtol=0)


def test_what_is_saved_comes_back(model_folder, tmp_path, pictures):
    scorer = load_scorer("mllm", model=model_folder("gemma3"), dimension="fine", question="How fine? {}",
                         readout="levels", levels=LEVELS, low=0, high=6, min_mass=0.0)  # fmt: skip
    scorer.save(tmp_path / "mine")
    data = json.loads((tmp_path / "mine" / "cogguided_scorer.json").read_text())
    assert data["templates"]["fine"] == {
        "readout": "levels", "question": "How fine? {}", "levels": LEVELS, "low": 0.0, "high": 6.0}  # fmt: skip
    again = load_scorer(tmp_path / "mine", min_mass=0.0)
    assert (again.name, again.readout, again.low, again.high) == ("fine", "levels", 0.0, 6.0)
    assert again.facts.dimensions == scorer.facts.dimensions
    torch.testing.assert_close(again(pictures, PROMPTS).values, scorer(pictures, PROMPTS).values)
    assert again.with_dimension("memorability").readout == "expected"
    target = load_target("fine=1,memorability=1", scorer=again)
    looks = []
    hook = again.model.model.vision_tower.register_forward_hook(lambda *_: looks.append(1))
    found = target(pictures[:2], PROMPTS[:2])
    hook.remove()
    assert len(looks) == 1, "terms that are read in different ways share a look"
    torch.testing.assert_close(found.terms["fine"].values, again(pictures[:2], PROMPTS[:2]).values)


def test_prompts_that_are_needed_must_be_there(facts_folder, pictures):
    scorer = load_scorer(facts_folder("qwen2_5_vl"), dimension="shows", min_mass=0.0)
    assert scorer.needs_prompt
    assert not scorer.with_dimension("fine").needs_prompt
    with pytest.raises(InputError, match="pass prompts"):
        scorer(pictures)
    assert list(scorer.score_all(pictures)) == ["fine", "sharp"]
    swapped = scorer(pictures[:1] * 2, PROMPTS[:2]).values
    assert (swapped[0] - swapped[1]).abs() > 1e-6
    odd = scorer([pictures[0]] * 2, ["{} {x}", "\n\n  "])
    assert odd.valid.all()


def test_too_little_mass_is_not_valid(facts_folder, pictures):
    scores = load_scorer(facts_folder("qwen2_5_vl"), min_mass=0.9)(pictures[:1])
    assert not scores.valid.any()
    assert "min_mass=0.9" in scores.errors[0]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"readout": "levels"}, "needs question="),
        ({"readout": "yes_no"}, "can be read by expected"),
        ({"question": "Sharp?"}, "say also how the answer is read"),
        ({"question": "Sharp?", "readout": "levels"}, "needs levels="),
        ({"question": "Sharp?", "readout": "expected"}, "needs question=, low= and high="),
        ({"question": " ", "readout": "yes_no"}, "expected a text"),
        ({"question": "Sharp?", "readout": "yes_no", "low": 1, "high": 5}, "gives a probability"),
        ({"question": "Sharp?", "readout": "yes_no", "words": ("Yes", "yes")}, "one word"),
        ({"question": "Sharp?", "readout": "yes_no", "words": "Yes"}, "expected two"),
        ({"question": "Sharp?", "readout": "levels", "levels": {"good": 1}}, "two words or more"),
        ({"question": "Sharp?", "readout": "levels", "levels": ["good", "bad"]}, "two words or more"),
        ({"question": "Sharp?", "readout": "levels", "levels": {"good": 1, " Good": 2}}, "a word occurs twice"),
        ({"question": "Sharp?", "readout": "levels", "levels": {"good": "1", "bad": 2}}, "expected a number"),
        ({"question": "Sharp?", "readout": "levels", "levels": {"good": math.nan, "bad": 2}}, "expected a number"),
        ({"question": "Sharp?", "readout": "levels", "levels": {"good": 1, "bad": 1}}, "nothing can be told apart"),
        ({"question": "Sharp?", "readout": "levels", "levels": LEVELS, "high": 4}, "outside 1 to 4"),
        ({"question": "Sharp?", "readout": "levels", "levels": LEVELS, "low": 5, "high": 1}, "low < high"),
        ({"question": "Sharp?", "readout": "expected", "low": 0, "high": 1, "levels": LEVELS}, "levels= is for"),
        ({"question": "Sharp?", "readout": "level", "low": 0, "high": 1}, "did you mean 'levels'"),
    ],
)
def test_questions_that_cannot_be_asked(arguments, match, model_folder):
    if "question" not in arguments and arguments["readout"] == "levels":
        arguments = {**arguments, "levels": LEVELS, "dimension": "fine"}
    with pytest.raises(InputError, match=match):
        load_scorer("mllm", model=model_folder("qwen2_5_vl"), **arguments)


def test_levels_are_read_in_any_case_and_rare_spellings_wait():
    dim, _ = choose({}, "fine", "levels", "How fine?", {"bad": 0, " good ": 4})
    tree = tree_of(lambda texts: [[ord(c) for c in text] for text in texts], dim, "levels")
    paths = [""]
    for token, parent in zip(tree.tokens[1:], tree.parents[1:], strict=True):
        paths.append(paths[parent] + chr(token))
    assert {paths[end] for end in np.flatnonzero(tree.ends)} == {"bad", "BAD", "Bad", "good", "GOOD", "Good"}
    said = {"bad": 0.25, "GOOD": 0.5, "Good": 1e-6, "other": 0.25 - 1e-6}
    search, fed = AnswerSearch(tree), []
    while len(nodes := search.next_nodes()):
        fed.append({paths[node] for node in nodes})
        parents, children = search.children(nodes)
        mass = lambda start: sum(p for text, p in said.items() if text.startswith(start)) + 1e-30  # noqa: E731
        shares = [mass(paths[child]) / mass(paths[nodes[of]]) for of, child in zip(parents, children, strict=True)]
        search.update(nodes, np.log(shares))
    assert fed[0] == {"", "b", "ba", "g", "go", "goo"}, "the spelling that was given, in the first pass"
    assert not any(text.startswith("B") for of in fed for text in of), "what nobody says is not looked at"
    reading = search.read()
    assert (reading.mean, reading.mass) == (pytest.approx(4 * 2 / 3, abs=1e-4), pytest.approx(0.75, abs=1e-4))


def test_words_that_the_tokenizer_cannot_spell():
    with pytest.raises(ModelError, match="no token of the word"):
        word_tree(lambda texts: [[] if text == "x" else [1] for text in texts], [["x"], ["y"]], [0.0, 1.0])
    with pytest.raises(ModelError, match="cannot tell 'y' from 'x'"):
        word_tree(lambda texts: [[1] for _ in texts], [["x"], ["y"]], [0.0, 1.0])
    assert spellings("Yes") == ["Yes", "yes", "YES"]


def test_facts_with_templates_that_do_not_fit(tmp_path, facts_folder, pictures):
    for template in ({"readout": "levels", "question": "?"}, {"question": "?", "hight": 2}, "levels"):
        (tmp_path / "cogguided_scorer.json").write_text(json.dumps({"templates": {"fine": template}}))
        with pytest.raises(ModelError, match=r"cogguided_scorer\.json"):
            ScorerFacts.read(tmp_path)
    scorer = load_scorer(facts_folder("qwen2_5_vl"))
    with pytest.raises(InputError, match="can be read by levels, not by 'greedy'"):
        scorer.readout = "greedy"
    with pytest.raises(InputError, match="can be read by levels, not by 'expected'"):
        scorer.score_readouts(pictures[:1], ["fine"], ["expected"])
    with pytest.raises(UnknownNameError, match="did you mean 'fine'"):
        scorer.with_dimension("fin")


def score(*arguments):
    return CliRunner().invoke(app, ["score", *map(str, arguments), "--format", "json"], env={"COLUMNS": "300"})


def test_the_command_line_asks_too(model_folder, pictures, tmp_path):
    pictures[0].save(tmp_path / "a.png")
    model = model_folder("llava_onevision")
    asked = ["--scorer", model, "--readout", "levels", "--question", "How fine?"]
    levels = ",".join(f"{word}={value}" for word, value in LEVELS.items())
    done = score(tmp_path / "a.png", *asked, "--levels", levels, "--dimension", "fine", "--high", 6)
    own = {"dimension": "fine", "question": "How fine?", "readout": "levels", "levels": LEVELS, "high": 6}
    expected = load_scorer("mllm", model=model, **own)([tmp_path / "a.png"])
    row = json.loads(done.stdout[: done.stdout.rindex("]") + 1])[0]
    if expected.valid.item():
        assert row["fine"] == pytest.approx(expected.values.item(), abs=1e-3)
    else:
        assert row["error"] == expected.errors[0]
    for more, said in (
        (["--levels", "good"], "as in bad=1,good=5"),
        (["--levels", "good=1"], "two words or more"),
        ([], "needs levels="),
        (["--levels", levels, "--dimension", "a,b"], "makes one score"),
    ):
        done = score(tmp_path / "a.png", *asked, *more)
        assert done.exit_code != 0
        assert said in done.output
    assert "is no MLLM" in score(tmp_path / "a.png", "--scorer", "fake", "--readout", "levels").output
