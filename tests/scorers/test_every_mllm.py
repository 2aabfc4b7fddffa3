"""Each model type of transformers' image-text-to-text mapping is a judge, or is refused with its reason."""

import pytest
import transformers
from mllm_types import NAMES, REFUSED, UNBUILT, YES, build, measure

transformers.utils.logging.disable_progress_bar()

QUICK = ("cosmos3_omni", "lfm3_vl", "mistral3")
TYPES = [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in NAMES if n not in UNBUILT]


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers' models and processors, on themselves
@pytest.mark.parametrize("name", TYPES)
def test_it_works_or_says_why_not(name, tmp_path):
    found = measure(build(name, tmp_path / "model"))
    ability, part = REFUSED.get(name, ("", ""))
    refused = {key: answer for key, answer in found.items() if key != "read" and answer != YES}
    assert set(refused) == ({ability} if ability else set()), found
    assert not ability or part in found[ability], found


def test_what_is_left_out_is_of_the_mapping():
    assert set(UNBUILT) | set(REFUSED) <= set(NAMES)
    assert not set(UNBUILT) & set(REFUSED)
