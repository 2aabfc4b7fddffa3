"""Each text-to-image pipeline of diffusers does all that cogguided offers, or is refused with its reason."""

import diffusers
import pytest
import transformers
from families import FAMILIES, ONE, YES, measure

diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.disable_progress_bar()

CLASSES = [pytest.param(n, marks=() if f.quick else pytest.mark.slow, id=n) for n, f in FAMILIES.items()]


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")  # diffusers' pipelines, of one another
@pytest.mark.parametrize("name", CLASSES)
def test_everything_works_or_says_why_not(name, tmp_path):
    found = measure(name, tmp_path)
    refused = {**FAMILIES[name].refused, **FAMILIES[name].skipped}
    assert {ability for ability, answer in found.items() if answer not in (YES, ONE)} == set(refused), found
    for ability, part in refused.items():
        assert part in found[ability], (ability, found[ability])
