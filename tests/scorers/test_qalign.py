import pytest
import torch
import transformers as tf
from judge_checks import check_frame, check_gradient, check_half

from cogguided._errors import InputError, ModelError
from cogguided.scorers import load_scorer
from cogguided.scorers.models.asked.qalign import BEGUN, WORDING, WORDS, QAlignScorer

QUESTION = "From five: Excellent, Good, Fair, Poor, Bad. How would you rate it?"


def reference(folder, picture):
    """As Q-SiT's authors read it: the image behind the question, the answer begun, the words' first tokens."""
    model = tf.AutoModelForImageTextToText.from_pretrained(folder)
    processor = tf.AutoProcessor.from_pretrained(folder)
    chat = [{"role": "user", "content": [{"type": "text", "text": QUESTION}, {"type": "image"}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    inputs = processor(images=picture, text=text, return_tensors="pt")
    begun = processor.tokenizer(BEGUN, return_tensors="pt")["input_ids"]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], begun], dim=-1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1].double()
    ids = [ids[0] for ids in processor.tokenizer(list(WORDS))["input_ids"]]
    shares = (logits[ids] - logits[ids].max()).exp()
    shares = shares / shares.sum()
    score = float(shares @ torch.tensor([1, 0.75, 0.5, 0.25, 0], dtype=torch.float64))  # on their scale of 0 to 1
    square = float(shares @ torch.tensor([5.0, 4, 3, 2, 1], dtype=torch.float64) ** 2)
    return 1 + 4 * score, (square - (1 + 4 * score) ** 2) ** 0.5


def load(folder, **kwargs):
    return QAlignScorer.from_pretrained(folder, **{"question": QUESTION, **kwargs})


def test_it_is_the_published_formula(model_folder, pictures):
    folder = model_folder("llava_onevision")
    expected = torch.tensor([reference(folder, picture) for picture in pictures])
    scores = load(folder)(pictures)
    torch.testing.assert_close(scores.values, expected[:, 0], atol=4e-4, rtol=0)
    torch.testing.assert_close(scores.std, expected[:, 1], atol=4e-4, rtol=0)


def test_frame_and_gradient(model_folder, pictures, tmp_path):
    with torch.inference_mode():  # whoever loads in it gets gradients all the same
        judge = load_scorer("qalign", model=model_folder("llava_onevision"), question=QUESTION)
    check_frame(judge, pictures, tmp_path, atol=4e-4)
    check_half(load(model_folder("llava_onevision"), dtype=torch.bfloat16), judge, pictures, share=0.1)
    check_gradient(judge, pictures[0], atol=0.2)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "gemma3"])
def test_any_model_and_other_words(model_folder, pictures, family):
    """As Q-Align asks: the words follow after a space, the image stands first."""
    judge = load(model_folder(family), begun="The quality is", words=("high", "medium", "negative"), image_first=True)
    scores = judge(pictures)
    assert ((scores.values > 1) & (scores.values < 5)).all()
    single = torch.cat([judge([picture]).values for picture in pictures])
    torch.testing.assert_close(scores.values, single, atol=4e-4, rtol=0)
    assert judge.ids == [judge.tokens(" " + word)[0] for word in judge.words]


def test_the_authors_question_is_read_from_their_file(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    kept = tmp_path / "cogguided/raw.githubusercontent.com" / "/".join(WORDING)
    kept.parent.mkdir(parents=True)
    kept.write_text(f"chat = [{{'content': [{{'text': {QUESTION!r}}}]}}]\ntoks = ['Excellent', 'Good']")
    assert load(model_folder("llava_onevision"), question=None).question == QUESTION


def test_words_that_cannot_be_told_apart(model_folder):
    folder = model_folder("llava_onevision")
    with pytest.raises(ModelError, match="begin with one token"):
        load(folder, words=("Xa", "Xb"))
    with pytest.raises(InputError, match="two or more"):
        load(folder, words="good")
