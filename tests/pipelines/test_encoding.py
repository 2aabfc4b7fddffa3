"""Each prompt goes through the text encoder once a call of the user's, and nothing of the image changes by it."""

import torch
from tiny_diffusion import CALL, tiny_pipeline

from cogguided.guidance import Noise
from cogguided.pipelines.driving.encoding import Encodings, encoded_once
from cogguided.pipelines.driving.sampler import PipelineSampler


def counted(pipe):
    calls = []
    forward = pipe.text_encoder.forward
    pipe.text_encoder.forward = lambda *a, **k: (calls.append(a[0].shape[0]), forward(*a, **k))[1]
    return calls


def sampler_of():
    pipe = tiny_pipeline("sd15")
    pipe.set_progress_bar_config(disable=True)
    return PipelineSampler(pipe, type(pipe), {**CALL["sd15"], "num_inference_steps": 4})


def test_a_prompt_is_encoded_once_however_often_it_is_drawn():
    sampler = sampler_of()
    calls = counted(sampler.pipe)
    sampler.sample(["a cat"] * 3, [0, 1, 2])
    first = list(calls)
    sampler.sample(["a cat"] * 3, [3, 4, 5])
    assert calls == first
    assert max(first) == 1  # one row of three that are the same


def test_a_single_prompt_too_through_all_legs():
    sampler = sampler_of()
    calls = counted(sampler.pipe)
    rows = sampler.begin(["a cat"], [Noise.of(0)])
    rows = sampler.advance(rows, 0.5)
    first = list(calls)
    sampler.decode(sampler.advance(rows, 1.0))
    assert calls == first


def test_images_are_those_of_plain_diffusers():
    sampler = sampler_of()
    generator = torch.Generator("cpu").manual_seed(0)
    plain = sampler.pipe("a cat", generator=generator, **sampler.arguments).images[0]
    for _ in range(2):  # the second time from what was kept
        assert sampler.sample(["a cat"], [0])[0].tobytes() == plain.tobytes()


def test_what_is_kept_cannot_be_written_to():
    class Encoder:
        def encode_prompt(self, prompt, device=None):
            return torch.ones(1, 2), [torch.zeros(1)]

    pipe, kept = Encoder(), Encodings()
    with encoded_once(pipe, kept):
        first, _ = pipe.encode_prompt("a cat")
        first += 1
        again, more = pipe.encode_prompt("a cat")
    assert again.eq(1).all()
    assert more[0].eq(0).all()
    assert "encode_prompt" not in vars(pipe)


def test_what_cannot_be_told_is_encoded_as_the_pipeline_asks():
    """As many layers as different prompts: the rows of such a list are not to be known."""
    calls = []

    class Encoder:
        layers = 3

        def encode_prompt(self, prompt, device=None):
            calls.append(len(prompt))
            rows = torch.tensor([[float(len(text))] * 5 for text in prompt])
            return rows, [rows + 10 * layer for layer in range(self.layers)], torch.zeros(7, 3)

    pipe = Encoder()
    prompts = ["a", "bb", "a", "bb"]
    for layers, expected in ((3, [2]), (2, [2, 4])):
        pipe.layers = layers
        calls.clear()
        with encoded_once(pipe, Encodings()):
            rows, many, positions = pipe.encode_prompt(prompts)
        assert calls == expected
        assert rows[:, 0].tolist() == [1, 2, 1, 2]
        assert [layer[:, 0].tolist() for layer in many] == [[1 + k, 2 + k] * 2 for k in range(0, 10 * layers, 10)]
        assert positions.shape == (7, 3)
