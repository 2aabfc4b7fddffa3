import pytest
import torch
from marked import EACH

from cogguided._errors import InputError, ModelError, UnknownNameError
from cogguided.scorers import DIMENSIONS, DimensionScorer, load_target
from cogguided.scorers.mllm import core as core_module
from cogguided.scorers.mllm.options import ReadOptions
from cogguided.scorers.mllm.reading import batch as batch_module
from cogguided.scorers.mllm.scorer import MLLMScorer

TOWER = {"mllama": "vision_model", "smolvlm": "vision_model"} | dict.fromkeys(
    ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"), "visual"
)


def quick_dimensions(family):
    """With single digits, a random model's answers on a ten-point scale are thousands of branches."""
    return list(DIMENSIONS) if family == "mllama" else ["emotional_valence", "memorability"]


@pytest.fixture(scope="module")
def scorers(model_folder):
    made = {}

    def get(family):
        if family not in made:
            made[family] = MLLMScorer.from_pretrained(model_folder(family), min_mass=0.0)
        return made[family]

    return get


def count_calls(scorer, family):
    tower = getattr(scorer.model.model, TOWER.get(family, "vision_tower"))
    calls = []
    return calls, tower.register_forward_hook(lambda *_: calls.append(1))


@pytest.mark.parametrize("family", EACH)
def test_a_score_does_not_depend_on_its_batch_and_all_dimensions_cost_one_look(family, scorers, pictures):
    scorer = scorers(family)
    assert scorer.core.packed
    calls, hook = count_calls(scorer, family)
    names = quick_dimensions(family)
    together = scorer.score_all(pictures, None if len(names) == 4 else names)
    assert len(calls) == 1
    alone = {name: scorer.with_dimension(name)(pictures) for name in names}
    hook.remove()
    assert len(calls) == 1 + len(names)
    assert list(together) == names
    for name in names:
        dim = DIMENSIONS[name]
        one = scorer.with_dimension(name)
        assert (one.low, one.high, one.name) == (dim.low, dim.high, name)
        tolerance = 1e-4 * (dim.high - dim.low)
        scores = together[name]
        assert scores.valid.all()
        assert ((scores.values >= dim.low) & (scores.values <= dim.high)).all()
        assert all(label in dim.labels for label in scores.labels)
        assert (scores.std > 0).all()
        torch.testing.assert_close(scores.values, alone[name].values, atol=tolerance, rtol=0)
    singles = torch.cat([one([picture]).values for picture in pictures])
    torch.testing.assert_close(scores.values, singles, atol=tolerance, rtol=0)  # batches know no dimensions


@pytest.mark.parametrize("family", EACH)
def test_the_image_matters(family, scorers, pictures):
    values = scorers(family).with_dimension("memorability")(pictures).values
    assert (values[0] - values[1]).abs() > 1e-5
    assert (values[0] - values[2]).abs() > 1e-5


def test_batches_keep_the_order_and_report_what_is_broken(scorers, pictures, tmp_path):
    scorer = scorers("qwen2_5_vl").with_dimension("memorability")
    expected = scorer(pictures).values
    (tmp_path / "broken.png").write_text("no image")
    scorer.batch_size = 2
    scores = scorer([pictures[2], tmp_path / "broken.png", pictures[1], pictures[0], "missing.png"])
    assert scores.valid.tolist() == [True, False, True, True, False]
    assert scores.num_invalid == 2
    assert "broken.png" in scores.errors[1]
    assert "missing.png" in scores.errors[4]
    assert scores.labels[1] is None
    torch.testing.assert_close(scores.values[[3, 2, 0]], expected, atol=1e-3, rtol=0)
    alone = scorer(["missing.png"])
    assert alone.num_invalid == 1
    assert len(scorer([])) == 0


def test_an_image_that_the_processor_refuses_is_flagged_alone(scorers, pictures):
    long_one = pictures[0].resize((1, 400))  # Qwen takes aspect ratios up to 200
    scores = scorers("qwen2_vl").with_dimension("memorability")([pictures[0], long_one, pictures[1]])
    assert scores.valid.tolist() == [True, False, True]
    assert "1x400" in scores.errors[1]


def test_tensors_are_scored_like_the_pictures_they_show(scorers, pictures):
    from cogguided.scorers.images import to_tensor

    scorer = scorers("qwen2_vl").with_dimension("memorability")
    scores = scorer(to_tensor(pictures[:1]))
    torch.testing.assert_close(scores.values, scorer(pictures[:1]).values)


def test_too_little_mass_is_not_valid(scorers, pictures):
    scorer = scorers("qwen2_vl")
    strict = MLLMScorer(scorer.core, "memorability", ReadOptions(min_mass=0.5))
    scores = strict(pictures[:1])
    assert scores.values.isnan().all()
    assert "min_mass=0.5" in scores.errors[0]
    assert 0 < scores.mass.item() < 0.5
    for part, valid in ((0.95, True), (1.05, False)):  # the very mass decides
        options = ReadOptions(min_mass=part * scores.mass.item())
        assert MLLMScorer(scorer.core, "memorability", options)(pictures[:1]).valid.item() == valid


def test_greedy_answers_are_parsed_strictly(scorers, pictures, monkeypatch):
    scorer = MLLMScorer(scorers("qwen2_vl").core, "aesthetics", ReadOptions("greedy"))
    tokenizer = scorer.processor.tokenizer
    said = iter([["medium 5.577", "0-10: high 7", "no idea"]])

    def answers(branches, questions, stop, max_new_tokens):
        return [{("greedy", "aesthetics"): tokenizer(text)["input_ids"]} for text in next(said)]

    monkeypatch.setattr(batch_module, "read_greedy", answers)
    scores = scorer(pictures)
    torch.testing.assert_close(scores.values, torch.tensor([5.577, 7.0, torch.nan]), equal_nan=True)
    assert scores.labels == ["medium", "high", None]
    assert "no number" in scores.errors[2]
    assert scores.std is None


def test_greedy_answers_go_on_to_their_limit(scorers, pictures, monkeypatch):
    limits = []

    def answers(branches, questions, stop, max_new_tokens):
        limits.append(max_new_tokens)
        return [{ask: [] for ask in questions}] * len(next(iter(questions.values())))

    monkeypatch.setattr(batch_module, "read_greedy", answers)
    core = scorers("qwen2_vl").core
    MLLMScorer(core, "aesthetics", ReadOptions("greedy"))(pictures[:1])
    short = MLLMScorer(core, "aesthetics", ReadOptions("greedy", max_new_tokens=7))
    short.with_dimension("memorability")(pictures[:1])
    assert limits == [100, 7]  # 100 as in the official code
    with pytest.raises(InputError, match="max_new_tokens >= 1"):
        MLLMScorer(core, "aesthetics", ReadOptions(max_new_tokens=0))


def test_greedy_of_a_random_model_is_flagged_not_zero(scorers, pictures):
    scores = MLLMScorer(scorers("mllama").core, "aesthetics", ReadOptions("greedy"))(pictures)
    assert scores.num_invalid == 3
    assert all(scores.errors)


def test_a_model_that_cannot_be_packed_is_run_branch_by_branch(scorers, pictures, monkeypatch):
    def refuse(model):
        raise ModelError("recurrent layers")

    packed = scorers("mllama").with_dimension("memorability")
    monkeypatch.setattr(core_module, "check_branchable", refuse)
    core = core_module.Core(packed.core.model, packed.core.processor, packed.core.facts)
    core.split_questions()
    with torch.inference_mode(), pytest.warns(UserWarning, match="recurrent layers"):
        core.check_packing()
    assert not core.packed
    slow = MLLMScorer(core, "memorability", ReadOptions(min_mass=0.0))
    torch.testing.assert_close(slow(pictures[:2]).values, packed(pictures[:2]).values, atol=1e-4, rtol=0)


def test_a_target_scores_its_dimensions_in_one_look(scorers, pictures):
    scorer = scorers("qwen2_5_vl")
    assert isinstance(scorer, DimensionScorer)
    target = load_target("memorability=1,emotional_valence=-0.5", scorer=scorer)
    calls, hook = count_calls(scorer, "qwen2_5_vl")
    result = target(pictures)
    hook.remove()
    assert len(calls) == 1
    unit = (scorer.with_dimension("emotional_valence")(pictures).values + 3) / 6
    memorable = scorer.with_dimension("memorability")(pictures).values
    torch.testing.assert_close(result.total, memorable - 0.5 * unit, atol=1e-4, rtol=0)


def test_wrong_arguments(scorers, pictures):
    core = scorers("qwen2_vl").core
    with pytest.raises(UnknownNameError, match="did you mean 'aesthetics'"):
        MLLMScorer(core, "aesthetic")
    with pytest.raises(UnknownNameError, match="did you mean 'greedy'"):
        MLLMScorer(core, "aesthetics", ReadOptions("greed"))
    with pytest.raises(InputError):
        MLLMScorer(core, "aesthetics", ReadOptions(batch_size=0))
    with pytest.raises(UnknownNameError):
        scorers("qwen2_vl").score_all(pictures, ["beauty"])
    with pytest.raises(InputError, match="pass \\[image\\]"):
        scorers("qwen2_vl")(pictures[0])


def test_moving_and_type(scorers, model_folder):
    scorer = MLLMScorer.from_pretrained(model_folder("qwen2_vl"), dtype=torch.bfloat16, min_mass=0.0)
    assert scorer.to("cpu") is scorer
    assert scorer.model.dtype == torch.bfloat16
    assert scorers("qwen2_vl").model.dtype == torch.float32


def test_bfloat16_is_close(scorers, model_folder, pictures):
    half = MLLMScorer.from_pretrained(model_folder("mllama"), "aesthetics", dtype=torch.bfloat16, min_mass=0.0)
    full = scorers("mllama").with_dimension("aesthetics")
    torch.testing.assert_close(half(pictures).values, full(pictures).values, atol=0.2, rtol=0)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
def test_two_readouts_are_the_single_ones_and_cost_one_look(family, scorers, pictures):
    scorer = scorers(family)
    names = ["memorability", "emotional_valence"]
    calls, hook = count_calls(scorer, family)
    both = scorer.score_readouts(pictures, names, ["greedy", "expected"])
    hook.remove()
    assert len(calls) == 1
    assert list(both) == ["greedy", "expected"]
    greedy = MLLMScorer(scorer.core, "memorability", ReadOptions("greedy", min_mass=0.0))
    for readout, alone in (
        ("greedy", greedy.score_all(pictures, names)),
        ("expected", scorer.score_all(pictures, names)),
    ):
        for name in names:
            torch.testing.assert_close(
                both[readout][name].values, alone[name].values, equal_nan=True, atol=1e-4, rtol=0
            )
            assert both[readout][name].errors == alone[name].errors
    with pytest.raises(UnknownNameError, match="unknown readout 'gredy': did you mean 'greedy'"):
        scorer.score_readouts(pictures, names, ["gredy"])


def test_a_target_reads_each_term_by_its_own_options(scorers, pictures):
    """Terms of one model share a pass where they are read alike, and only there."""
    first = MLLMScorer(scorers("qwen2_vl").core, "memorability", ReadOptions(min_mass=0.0))
    second = first.with_dimension("aesthetics")
    second.readout = "greedy"
    third = first.with_dimension("funniness")
    third.min_mass = 1.0
    assert (first.readout, first.min_mass) == ("expected", 0.0)
    terms = load_target({first: 1, second: 1, third: 1})(pictures[:2]).terms
    for scorer in (first, second, third):
        alone = scorer(pictures[:2])
        torch.testing.assert_close(terms[scorer.name].values, alone.values, equal_nan=True)
        assert terms[scorer.name].errors == alone.errors
    assert not terms["funniness"].valid.any()
    assert terms["memorability"].valid.all()
