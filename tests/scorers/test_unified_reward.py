import pytest
import torch
import transformers as tf
from judge_checks import PROMPTS, check_frame

from cogguided._errors import InputError, UnknownNameError
from cogguided.scorers import load_scorer
from cogguided.scorers.models.asked.unified_reward import WORDINGS, UnifiedRewardScorer, read_number

QUESTION = "Rate it.\nText Caption: [{prompt}]"
GOOD = "Alignment Score (1-5): {}\nCoherence Score (1-5): {}\nStyle Score (1-5): {}"


@pytest.fixture(scope="module")
def judge(model_folder):
    return load_scorer("unified_reward", model=model_folder("qwen2_5_vl"), question=QUESTION, max_new_tokens=12)


def reference(folder, picture, prompt):
    """The likeliest answer, token by token, one image at a time, by the model's own chat template."""
    model = tf.AutoModelForImageTextToText.from_pretrained(folder)
    processor = tf.AutoProcessor.from_pretrained(folder)
    content = [{"type": "image", "image": picture}, {"type": "text", "text": QUESTION.replace("{prompt}", prompt)}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    said = []
    while len(said) < 12:
        with torch.no_grad():
            token = int(model(**inputs).logits[0, -1].argmax())
        if token == processor.tokenizer.eos_token_id:
            break
        said.append(token)
        for key, value in (("input_ids", token), ("attention_mask", 1), ("mm_token_type_ids", 0)):
            inputs[key] = torch.cat([inputs[key], torch.tensor([[value]])], dim=1)
    return processor.tokenizer.decode(said, skip_special_tokens=True)


def test_the_answer_is_the_likeliest_in_a_batch_and_alone(model_folder, judge, pictures):
    expected = [reference(model_folder("qwen2_5_vl"), i, p) for i, p in zip(pictures, PROMPTS, strict=True)]
    assert judge.answers(judge.prepare(pictures, PROMPTS)) == expected
    scores = judge(pictures, PROMPTS)  # a random model does not rate
    assert scores.num_invalid == 3
    assert all("its answer has no 'Alignment Score'" in error for error in scores.errors)


@pytest.fixture
def rating(judge, monkeypatch):
    """The judge with a model that says a number which depends on the pixels of its image."""

    def answers(inputs):
        ends = inputs["image_grid_thw"].prod(dim=1).cumsum(0).tolist()
        parts = [inputs["pixel_values"][a:b] for a, b in zip([0, *ends], ends, strict=False)]
        return [GOOD.format(round(3 + float(p.mean()), 4), 2, 2.5) for p in parts]

    monkeypatch.setattr(judge, "answers", answers)
    return judge


def test_frame(rating, pictures, tmp_path):
    check_frame(rating, pictures, tmp_path, atol=4e-4)
    assert not rating.differentiable
    assert not rating(torch.rand(1, 3, 32, 32, requires_grad=True), ["a"]).values.requires_grad


@pytest.mark.parametrize(
    ("text", "axis", "expected"),
    [
        (GOOD.format(2.694700002670288, 2.371500015258789, 2.802500009536743), "alignment", 2.694700002670288),
        (GOOD.format(1, 2, 3), "mean", 2.0),
        (GOOD.format(1, 2, 5), "style", 5.0),
        ("a cat (animal): 1\nFinal Score: 4.25", "final", 4.25),
        (GOOD.format(1, 2, 3), "final", "no 'Final Score'"),
        (GOOD.format("X", 2, 3), "mean", "no 'Alignment Score'"),
        (GOOD.format(7, 2, 3), "mean", "is 7, not from 1 to 5"),
        ("Final Score: 1.2.3", "final", "no 'Final Score'"),
    ],
)
def test_numbers_are_read_strictly(text, axis, expected):
    found = read_number(text, axis)
    assert expected in found if isinstance(expected, str) else found == expected


def test_the_authors_question_is_read_from_their_file(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    for version, text in (("2.0", "All axes.\\n"), ("1.0", "One score.\\n")):
        kept = tmp_path / "cogguided/raw.githubusercontent.com" / "/".join(WORDINGS[version])
        kept.parent.mkdir(parents=True)
        kept.write_text(f"prompt = ''\nproblem = ('{text}'\n    f'Text Caption: [{{prompt}}]')\n")
    folder = model_folder("qwen2_5_vl")
    assert UnifiedRewardScorer.from_pretrained(folder).question == "All axes.\nText Caption: [{prompt}]"
    assert UnifiedRewardScorer.from_pretrained(folder, "final").question == "One score.\nText Caption: [{prompt}]"


def test_what_it_does_not_take(model_folder):
    folder = model_folder("qwen2_5_vl")
    with pytest.raises(UnknownNameError, match="axis of unified_reward"):
        UnifiedRewardScorer.from_pretrained(folder, "beauty", QUESTION)
    with pytest.raises(InputError, match=r"a question with \{prompt\}"):
        UnifiedRewardScorer.from_pretrained(folder, question="Well?")
