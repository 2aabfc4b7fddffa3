import pytest

from cogguided._errors import InputError, UnknownNameError
from cogguided.scorers import DIMENSIONS, Dimension, dimension


def test_the_four_dimensions_and_their_ranges():
    ranges = {name: (dim.low, dim.high) for name, dim in DIMENSIONS.items()}
    assert ranges == {
        "aesthetics": (0, 10),
        "funniness": (0, 10),
        "emotional_valence": (-3, 3),
        "memorability": (0, 1),
    }


@pytest.mark.parametrize(
    ("name", "value", "label"),
    [
        ("aesthetics", 0, "very low"),
        ("aesthetics", 3.4999, "very low"),
        ("aesthetics", 3.5, "low"),
        ("aesthetics", 5.0, "medium"),
        ("aesthetics", 6.5, "high"),
        ("aesthetics", 8.0, "very high"),
        ("aesthetics", 10, "very high"),
        ("funniness", 7.218, "high"),
        ("memorability", 0.35, "low"),
        ("memorability", 1.0, "very high"),
        ("emotional_valence", -3, "negative"),
        ("emotional_valence", -0.0501, "negative"),
        ("emotional_valence", -0.05, "neutral"),
        ("emotional_valence", 0, "neutral"),
        ("emotional_valence", 0.549, "neutral"),
        ("emotional_valence", 0.55, "positive"),
        ("emotional_valence", 1, "positive"),
    ],
)
def test_bins_run_from_closed_to_open(name, value, label):
    assert dimension(name).label(value) == label


@pytest.mark.parametrize("dim", DIMENSIONS.values(), ids=str)
def test_bins_have_no_gaps_and_every_middle_has_its_label(dim):
    for label in dim.labels:
        assert dim.label(dim.middle(label)) == label
        assert dim.label(dim.bin(label)[0]) == label
    assert len(set(dim.numbers())) == round((dim.high - dim.low) * 1000) + 1


@pytest.mark.parametrize("dim", DIMENSIONS.values(), ids=str)
def test_the_example_in_a_question_is_a_valid_answer(dim):
    example = dim.question.rsplit("example: ", 1)[1]
    label, number = example.rsplit(" ", 1)
    assert number in dim.numbers()
    assert dim.label(float(number)) == label
    assert all(word in dim.question for word in dim.labels)


def test_zero_has_no_sign():
    assert dimension("emotional_valence").answer(-0.0001) == "neutral 0.000"
    assert "-0.000" not in dimension("emotional_valence").numbers()


def test_values_and_names_outside():
    with pytest.raises(InputError, match="0 to 1"):
        dimension("memorability").label(1.01)
    with pytest.raises(InputError):
        dimension("memorability").label(float("nan"))
    with pytest.raises(UnknownNameError, match="did you mean 'very low'"):
        dimension("memorability").bin("verylow")
    with pytest.raises(UnknownNameError, match="did you mean 'aesthetics'"):
        dimension("aesthetic")


@pytest.mark.parametrize("edges", [(0.0, 1.0), (0.0, 2.0, 1.0), (0.0, 0.0, 1.0)])
def test_bins_out_of_order_are_refused(edges):
    with pytest.raises(InputError):
        Dimension("x", "", ("a", "b"), edges, "?")
