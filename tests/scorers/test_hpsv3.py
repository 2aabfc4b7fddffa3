import math

import pytest
import torch
import transformers as tf
from judge_checks import PROMPTS, check_frame, check_gradient, check_half
from safetensors.torch import load_file, save_file

from cogguided._errors import InputError, ModelError
from cogguided.scorers import load_scorer
from cogguided.scorers.models.asked.hpsv3 import WORDING, HPSv3Scorer

INSTRUCTION = "Rate this.\nTextual prompt - {text_prompt} {kept}\n Overall: <|Reward|> END "
PIXELS = 4 * 28 * 28


@pytest.fixture(scope="module")
def base(model_folder):
    return model_folder("qwen2_vl")


def published_names(name, old):
    """As the file names its weights: as transformers did before 4.52, or as it does since."""
    if not old:
        return name
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def write(folder, base, old=True, seed=0):
    """HPSv3.safetensors: a Qwen2-VL with one more token, and its head."""
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    model = tf.Qwen2VLForConditionalGeneration.from_pretrained(base)
    tokenizer = tf.AutoTokenizer.from_pretrained(base)
    model.resize_token_embeddings(len(tokenizer) + 1, mean_resizing=False)
    weights = {published_names(name, old): tensor.clone() for name, tensor in model.state_dict().items()}
    for place, wide, narrow in ((0, 32, 24), (3, 24, 16), (5, 16, 2)):
        weights[f"rm_head.{place}.weight"] = torch.randn(narrow, wide) / 4
        weights[f"rm_head.{place}.bias"] = torch.randn(narrow) / 4
    save_file(weights, folder / "HPSv3.safetensors")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, base):
    return write(tmp_path_factory.mktemp("hps") / "v3", base)


def load(folder, base, **kwargs):
    kwargs = {"instruction": INSTRUCTION, "pixels": PIXELS, **kwargs}
    return HPSv3Scorer.from_pretrained(folder, base, **kwargs)


def reference(folder, base, picture, prompt):
    """The authors' way, one image at a time: scale, ask, find the token, go through the head by hand."""
    weights = load_file(folder / "HPSv3.safetensors")
    processor = tf.AutoProcessor.from_pretrained(base)
    processor.tokenizer.add_tokens(["<|Reward|>"], special_tokens=True)
    config = tf.AutoConfig.from_pretrained(base)
    config.text_config.vocab_size = len(processor.tokenizer)
    model = tf.Qwen2VLForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        parameter.data = weights[published_names(name, old=True)]
    ratio = math.sqrt(PIXELS / (picture.width * picture.height))
    sides = [round(side / 28) * 28 for side in picture.size]
    if sides[0] * sides[1] > PIXELS:
        sides = [max(28, math.floor(side * ratio / 28) * 28) for side in picture.size]
    elif sides[0] * sides[1] < PIXELS:
        sides = [math.ceil(side * ratio / 28) * 28 for side in picture.size]
    question = INSTRUCTION.replace("{text_prompt}", prompt)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[picture.resize(sides, 3)], do_resize=False, return_tensors="pt")
    with torch.no_grad():
        hidden = model.model(**inputs).last_hidden_state[0].double()
    place = inputs["input_ids"][0].tolist().index(len(processor.tokenizer) - 1)
    x = hidden[place]
    for layer in (0, 3, 5):
        x = weights[f"rm_head.{layer}.weight"].double() @ x + weights[f"rm_head.{layer}.bias"].double()
        x = x.clamp(min=0) if layer < 5 else x
    return float(x[0]), math.exp(float(x[1]))


def test_it_is_the_published_formula_value_and_spread(folder, base, pictures):
    expected = torch.tensor([reference(folder, base, i, p) for i, p in zip(pictures, PROMPTS, strict=True)])
    scores = load(folder, base)(pictures, PROMPTS)
    torch.testing.assert_close(scores.values, expected[:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(scores.std, expected[:, 1], atol=1e-4, rtol=1e-4)


def test_frame_and_gradient(folder, base, pictures, tmp_path):
    with torch.inference_mode():  # whoever loads in it gets gradients all the same
        judge = load_scorer("hpsv3", model=folder, base=base, instruction=INSTRUCTION, pixels=PIXELS)
    check_frame(judge, pictures, tmp_path, atol=1e-3)
    check_half(load(folder, base, dtype=torch.bfloat16), judge, pictures)
    check_gradient(judge, pictures[0], atol=0.2)


def test_both_namings_of_the_weights(folder, base, tmp_path, pictures):
    new = write(tmp_path / "new", base, old=False)
    torch.testing.assert_close(
        load(new, base)(pictures, PROMPTS).values, load(folder, base)(pictures, PROMPTS).values, atol=1e-5, rtol=0
    )


def test_the_authors_instruction_is_read_from_their_file_and_not_run(folder, base, tmp_path, pictures, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    kept = tmp_path / "cogguided/raw.githubusercontent.com" / "/".join(WORDING)
    kept.parent.mkdir(parents=True)
    start, end = INSTRUCTION.split(" Overall")
    code = f"raise SystemExit\nSHORT = '{{text_prompt}}'\nINSTRUCTION = {start!r}\nASK = {' Overall' + end!r}\n"
    kept.write_text(code)
    judge = load(folder, base, instruction=None)
    assert judge.instruction == INSTRUCTION
    kept.write_text("nothing = 0")
    with pytest.raises(ModelError, match=r"has no text with '\{text_prompt\}'"):
        load(folder, base, instruction=None)


def test_what_does_not_fit(folder, base, tmp_path, pictures):
    with pytest.raises(InputError, match=r"one <\|Reward\|>"):
        load(folder, base, instruction="{text_prompt}")
    with pytest.raises(InputError, match="a prompt holds"):
        load(folder, base)(pictures[:1], ["<|Reward|>"])
    weights = load_file(folder / "HPSv3.safetensors")
    for lack, match in (("rm_head.3.weight", "no head of HPS v3"), ("model.norm.weight", "1 weights are missing")):
        save_file({n: t for n, t in weights.items() if n != lack}, tmp_path / "HPSv3.safetensors")
        with pytest.raises(ModelError, match=match):
            load(tmp_path, base)
