"""Models that read a question as a whole before they answer: what is read of them is what `generate` says."""

import pytest
import torch
from mllm_types import build
from mllm_types.trying import PICTURES

from cogguided._errors import ModelError
from cogguided.scorers.mllm.branching import cut_prefix
from cogguided.scorers.mllm.reading.whole import Whole, decoder_start
from cogguided.scorers.mllm.scorer import MLLMScorer

NAMES = ["florence2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("paligemma", "t5gemma2"))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(name):
        if name not in made:
            made[name] = build(name, tmp_path_factory.mktemp(name) / "model")
        return made[name]

    return folder


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_answers_have_the_probabilities_that_generate_gives(name, folders):
    with pytest.warns(UserWarning, match="reads a question as a whole"):
        core = MLLMScorer.from_pretrained(folders(name), "memorability", min_mass=0.0).core
    if name == "florence2":  # as the published ones have it
        core.model.generation_config.forced_bos_token_id = 7
        assert decoder_start(core.model)[1:] == [7]
    dims, tokens = core.facts.dimensions, core.questions
    inputs = core.prepare(PICTURES[:1], dims["memorability"].question)
    prefix, lengths = cut_prefix(inputs, len(tokens["memorability"]))
    branches = Whole(core.model, prefix, lengths, tokens.values())
    for asked in ("memorability", "funniness"):  # the second in place of the first, which the prompt was made with
        prompt = core.prepare(PICTURES[:1], dims[asked].question)
        said = core.model.generate(
            **prompt, max_new_tokens=5, min_new_tokens=5, do_sample=False, output_logits=True,
            return_dict_in_generate=True,
        )
        forced = len(decoder_start(core.model)) - 1 if core.model.config.is_encoder_decoder else 0
        answer = said.sequences[0, forced - 5 :].tolist()
        base = branches.num_slots
        path = [*tokens[asked], *answer]
        found = branches.extend([path], [[-1, *range(base, base + len(path) - 1)]])[0, len(tokens[asked]) - 1 : -1]
        expected = torch.cat(said.logits[forced:])
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


def test_a_question_with_which_another_begins_is_refused(folders):
    with pytest.raises(ModelError, match="begins with another"):
        Whole(torch.nn.Module(), {}, [1], [[1, 2], [1, 2, 3]])
