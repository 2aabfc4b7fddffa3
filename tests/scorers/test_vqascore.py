import pytest
import torch
import transformers as tf
from judge_checks import PROMPTS, check_frame, check_gradient, check_half

from cogguided._errors import InputError
from cogguided.scorers import load_scorer
from cogguided.scorers.models.asked.vqascore import QUESTION, VQAScorer
from cogguided.scorers.models.parts.asking import fill_in


def reference(folder, picture, question, answer):
    """The answer's probability token by token, one image at a time, by the model's own chat template."""
    model = tf.AutoModelForImageTextToText.from_pretrained(folder)
    processor = tf.AutoProcessor.from_pretrained(folder)
    content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    probability = 1.0
    for token in processor.tokenizer(answer, add_special_tokens=False)["input_ids"]:
        with torch.no_grad():
            probability *= float(model(**inputs).logits[0, -1].double().softmax(-1)[token])
        for key, value in (("input_ids", token), ("attention_mask", 1), ("mm_token_type_ids", 0)):
            if key in inputs:
                inputs[key] = torch.cat([inputs[key], torch.tensor([[value]])], dim=1)
    return probability


@pytest.mark.parametrize(  # a single token of the tiny tokenizers, and several
    ("family", "answer"), [("qwen2_5_vl", "low"), ("gemma3", "Yes"), ("llava_onevision", "Yes")]
)
def test_it_is_the_published_formula(model_folder, pictures, family, answer):
    folder = model_folder(family)
    judge = VQAScorer.from_pretrained(folder, answer=answer)
    expected = [reference(folder, i, QUESTION.format(p), answer) for i, p in zip(pictures, PROMPTS, strict=True)]
    got = judge(pictures, PROMPTS).values
    torch.testing.assert_close(got, torch.tensor(expected), atol=1e-4 * max(expected), rtol=0)


def test_frame_and_gradient(model_folder, pictures, tmp_path):
    with torch.inference_mode():  # whoever loads in it gets gradients all the same
        judge = load_scorer("vqascore", model=model_folder("qwen2_5_vl"), answer="very low", question="{}? Well?")
    check_frame(judge, pictures, tmp_path, atol=1e-4)
    half = VQAScorer.from_pretrained(model_folder("qwen2_5_vl"), "{}? Well?", "very low", dtype=torch.bfloat16)
    check_half(half, judge, pictures)
    check_gradient(judge, pictures[0], atol=1e-2)


def test_an_image_that_the_processor_refuses_spoils_no_other(model_folder, pictures):
    judge = VQAScorer.from_pretrained(model_folder("qwen2_5_vl"))
    scores = judge([pictures[0].resize((2000, 5)), pictures[1]], PROMPTS[:2])
    assert scores.valid.tolist() == [False, True]
    assert "refused by the model" in scores.errors[0]


def test_questions(model_folder):
    with pytest.raises(InputError, match=r"a question with \{\} for the prompt"):
        VQAScorer.from_pretrained(model_folder("qwen2_5_vl"), question="Is it good?")
    assert fill_in("{}, {a} {b}", **{"": "{a}", "a": "{b}", "b": "c"}) == "{a}, {b} c"
