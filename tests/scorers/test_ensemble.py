import pytest
import torch

from cogguided._errors import InputError, UnknownNameError
from cogguided.scorers import Ensemble, FakeScorer, Scores, Target, Term, load_target, parse_weights

IMAGES = torch.stack([torch.zeros(3, 2, 2), torch.full((3, 2, 2), 0.5), torch.ones(3, 2, 2)])


class ManyDimensions:
    """A stand-in for an MLLM: every dimension is the brightness on the scale -3..3."""

    name, low, high, differentiable, needs_prompt = "emotional_valence", -3.0, 3.0, False, False
    dimensions = ("emotional_valence", "memorability")

    def __init__(self, dimension="emotional_valence", core=None, options="mean"):
        self.dimension, self.options = dimension, options
        self.core = core if core is not None else {"passes": 0}

    def with_dimension(self, name):
        return ManyDimensions(name, self.core)

    def score_all(self, images, dimensions=None):
        self.core["passes"] += 1
        values = images.mean(dim=(1, 2, 3)) * 6 - 3
        return {name: Scores(values) for name in dimensions or self.dimensions}

    def __call__(self, images, prompts=None):
        return self.score_all(images, [self.dimension])[self.dimension]

    def to(self, device):
        return self


def test_terms_are_normalised_by_their_range_and_weighed_with_their_sign():
    wide = FakeScorer("wide", low=-1.0, high=3.0)
    narrow = FakeScorer("narrow", low=0.0, high=0.5)
    result = load_target({wide: 2, narrow: -0.5})(IMAGES)
    brightness = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(result.total, 2 * (brightness + 1) / 4 - 0.5 * brightness / 0.5)
    torch.testing.assert_close(result.terms["wide"].values, brightness)  # raw
    assert result.valid.all()


def test_one_name_is_normalised_too():
    target = load_target(FakeScorer("light", high=2.0))
    assert target.name == "light"
    assert target(IMAGES).total.tolist() == [0.0, 0.25, 0.5]


def test_an_image_without_one_term_has_no_total():
    broken = FakeScorer("broken", fn=lambda x: x.mean(dim=(1, 2, 3)).log().clamp(min=0) / 0 * 0)
    result = load_target({FakeScorer("light"): 1, broken: 1})(IMAGES)
    assert result.valid.tolist() == [False, False, False]
    assert result.total.isnan().all()
    assert result.errors[0].startswith("broken:")


def test_an_image_without_a_score_leaves_the_others_theirs():
    picky = FakeScorer("picky", fn=lambda x: x.mean(dim=(1, 2, 3)).where(x.mean(dim=(1, 2, 3)) > 0.1, torch.nan))
    result = load_target({FakeScorer("light"): 1, picky: 1})(IMAGES)
    torch.testing.assert_close(result.total, torch.tensor([torch.nan, 1.0, 2.0]), equal_nan=True)
    assert result.valid.tolist() == [False, True, True]
    assert [error is None for error in result.errors] == [False, True, True]
    ensemble = Ensemble(load_target({FakeScorer("light"): 1, picky: 1}))
    assert ensemble(IMAGES).valid.tolist() == [False, True, True]


def test_a_term_of_weight_zero_is_reported_and_not_counted():
    nan = FakeScorer("nan", fn=lambda x: x.mean(dim=(1, 2, 3)) * torch.nan)
    result = load_target({FakeScorer("light"): 1, nan: 0})(IMAGES)
    assert result.valid.all()
    assert result.terms["nan"].num_invalid == 3


def test_dimensions_of_one_model_are_scored_in_one_pass():
    scorer = ManyDimensions()
    target = load_target("emotional_valence=1,memorability=-1,light=1", scorer={"mllm": scorer}, load=FakeScorer)
    result = target(IMAGES)
    assert scorer.core["passes"] == 1
    assert list(result.terms) == ["emotional_valence", "memorability", "light"]
    torch.testing.assert_close(result.total, torch.tensor([0.0, 0.5, 1.0]))


def test_dimensions_loaded_by_name_share_their_weights():
    loads = []

    def load(name):
        loads.append(name)
        return ManyDimensions(name)

    target = load_target("emotional_valence,memorability", load=load)
    assert loads == ["emotional_valence"]
    assert target.terms[0].scorer.core is target.terms[1].scorer.core


def test_scorers_already_loaded_are_used():
    light = FakeScorer("light")
    assert load_target("light=-1", scorer=light).terms[0].scorer is light
    assert load_target("light", scorer={"light": light}).terms[0].scorer is light


def test_the_ensemble_is_a_scorer_with_a_range():
    ensemble = Ensemble(load_target({FakeScorer("a"): 1, FakeScorer("b", differentiable=False): -0.5}))
    assert (ensemble.low, ensemble.high) == (-0.5, 1.0)
    assert not ensemble.differentiable
    scores = ensemble(IMAGES)
    torch.testing.assert_close(scores.values, torch.tensor([0.0, 0.25, 0.5]))
    nested = load_target({ensemble: 1.0})(IMAGES)
    torch.testing.assert_close(nested.total, (scores.values + 0.5) / 1.5)


def test_gradients_pass_through_a_target():
    images = IMAGES.clone().requires_grad_()
    load_target({FakeScorer("a"): -2})(images).total.sum().backward()
    assert (images.grad < 0).all()


def test_weights_as_text():
    assert parse_weights("a=1,b=-.5, c") == {"a": 1.0, "b": -0.5, "c": 1.0}


@pytest.mark.parametrize("text", ["", "a=", "a=x", "a=1,,b=2", "=1", "a=nan", "a=inf", "a=1,a=2"])
def test_malformed_weights(text):
    with pytest.raises(InputError):
        parse_weights(text)


@pytest.mark.parametrize("spec", [None, 3, {"fake": "much"}, {"fake": True}, {"fake": float("nan")}, {}, {"fake": 0}])
def test_malformed_targets(spec):
    with pytest.raises(InputError):
        load_target(spec)


def test_unknown_and_doubled_names():
    with pytest.raises(UnknownNameError, match="did you mean 'memorability'"):
        load_target("memorabilty")
    with pytest.raises(InputError, match="twice"):
        Target([Term("a", 1, FakeScorer("a")), Term("a", 1, FakeScorer("a"))])
