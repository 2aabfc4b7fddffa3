"""The strict parser: by hand, and on every official answer of CogIP-Bench where it is at hand."""

import json
import re
from pathlib import Path

import pytest

from cogguided.scorers.dimensions import dimension
from cogguided.scorers.mllm.parsing import parse_answer

COGIP = Path(__file__).resolve().parents[3] / "shared" / "cogip"


@pytest.mark.parametrize(
    ("text", "name", "value", "label"),
    [
        ("medium 5.577", "aesthetics", 5.577, "medium"),
        ("very high 10.000", "aesthetics", 10.0, "very high"),
        ("high 7", "aesthetics", 7.0, "high"),
        ("10", "funniness", 10.0, None),
        ("0", "funniness", 0.0, None),
        (".5", "memorability", 0.5, None),
        ("Very Low, 1.250.", "aesthetics", 1.25, "very low"),
        ("**Label:** low\n**Score:** 4.2", "aesthetics", 4.2, "low"),
        ("On a scale from 0 to 10 I say 6.5", "aesthetics", 6.5, None),
        ("0-10: high 7.5", "aesthetics", 7.5, "high"),
        ("(6.5, 8.0, 'high') 7.2", "aesthetics", 7.2, "high"),
        ("[0.0, 3.5) very low 2", "aesthetics", 2.0, "very low"),
        ("low 4/10", "aesthetics", 4.0, "low"),
        ("low 4 out of 10", "aesthetics", 4.0, "low"),
        ("negative -1.000", "emotional_valence", -1.0, "negative"),
        ("negative \u22122", "emotional_valence", -2.0, "negative"),
        ("positive +2.5", "emotional_valence", 2.5, "positive"),
        ("negative \u20121.250", "emotional_valence", -1.25, "negative"),
        ("negative \u20131.250", "emotional_valence", -1.25, "negative"),
        ("negative \u20141.250", "emotional_valence", -1.25, "negative"),
        ("\u20131.25", "emotional_valence", -1.25, None),
        ("score:\u2014.5", "emotional_valence", -0.5, None),
        ("\u20133 to 3: \u20131.25", "emotional_valence", -1.25, None),
        ("\u20133\u20133: 1.25", "emotional_valence", 1.25, None),
        ("0\u201310, say 7", "aesthetics", 7.0, None),
        ("between 0 and 10, say 7", "aesthetics", 7.0, None),
        ("_7_ and __7__", "aesthetics", 7.0, None),
        ("*high* `7.5`", "aesthetics", 7.5, "high"),
        ("score:-0.25", "emotional_valence", -0.25, None),
        ("neutral -0.000", "emotional_valence", 0.0, "neutral"),
        ("(-3, -0.1, 'negative') negative -1.000", "emotional_valence", -1.0, "negative"),
        ("- (0.0, 3.5] → 'very low'\nvery low 2.125", "funniness", 2.125, "very low"),
        ("high: 7.2 (range 6.5~8)", "aesthetics", 7.2, "high"),
        ("<answer>high 7.2</answer>", "aesthetics", 7.2, "high"),
        ("positive - 2.000", "emotional_valence", 2.0, "positive"),
        ("neutral - 0.000", "emotional_valence", 0.0, "neutral"),
        ("low - 4.105", "aesthetics", 4.105, "low"),
        ("high or very high? 8.1", "aesthetics", 8.1, None),
        ("7.5 ... yes, 7.5", "aesthetics", 7.5, None),
    ],
)
def test_answers_that_can_be_read(text, name, value, label):
    assert parse_answer(text, dimension(name)) == (value, label)


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ("", "aesthetics", "no number"),
        ("beautiful", "aesthetics", "no number"),
        ("from 0 to 10", "aesthetics", "only a range"),
        ("0-10", "aesthetics", "only a range"),
        ("high 6.5-8", "aesthetics", "only a range"),
        ("negative - 1.5", "emotional_valence", "a dash apart"),
        ("between 0 and 10", "aesthetics", "only a range"),
        ("1_0", "aesthetics", "no number"),
        ("1*0", "aesthetics", "several numbers"),
        ("high 7, 2 dogs", "aesthetics", "several numbers"),
        ("medium 5.577 and 6", "aesthetics", "several numbers"),
        ("- 2", "emotional_valence", "a dash apart"),
        ("high 11", "aesthetics", "outside 0..10"),
        ("low -1.5", "aesthetics", "outside 0..10"),
        ("57%", "memorability", "no number"),
        ("v2.5.1", "aesthetics", "no number"),
        ("5,577", "aesthetics", "no number"),
        ("between 5.1, perhaps 7.2", "aesthetics", "several numbers"),
        ("1e5", "aesthetics", "no number"),
    ],
)
def test_answers_that_cannot(text, name, reason):
    with pytest.raises(ValueError, match=reason):
        parse_answer(text, dimension(name))


def official_answers():
    """Dimension, prompt and answer of every record."""
    for record in json.loads((COGIP / "cognition_training.json").read_text()):
        name = record["image"][0].partition("/")[0].lower()
        yield name, record["conversations"][0]["value"], record["conversations"][1]["value"]
    for file in (COGIP / "test_msg_file").glob("*/*_messages.json"):
        answers = json.loads(Path(str(file).replace("_messages", "_scores")).read_text())
        for chat, answer in zip(json.loads(file.read_text()), answers, strict=True):
            yield file.parent.name.lower(), chat[0]["content"][1]["text"], answer


@pytest.mark.skipif(not COGIP.is_dir(), reason="CogIP-Bench's text half is not beside the repository")
def test_every_official_answer_alone_and_after_its_echoed_rules():
    count = 0
    for name, prompt, answer in official_answers():
        label, _, number = answer.rpartition(" ")
        dim = dimension(name)
        assert parse_answer(answer, dim) == (float(number), label)
        assert dim.label(float(number)) == label
        rules = re.findall(r"^ *[-*] .*\d.*$", prompt, re.MULTILINE)
        assert len(rules) >= len(dim.labels), prompt
        assert parse_answer("\n".join([*rules, answer]), dim)[0] == float(number), rules
        count += 1
    assert count == 4919
