import inspect
import re

import pytest

from cogguided import _errors


def test_each_error_is_in_the_tree_and_in_its_drawing():
    classes = [c for _, c in inspect.getmembers(_errors, inspect.isclass) if c.__module__ == _errors.__name__]
    assert {c.__name__ for c in classes} == set(re.findall(r"\w+Error\b", _errors.__doc__.split("Catch")[0])) - {
        "ValueError",
        "ImportError",
        "RuntimeError",
    }
    assert all(issubclass(c, _errors.CogGuidedError) for c in classes)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (_errors.ImageError, ValueError),
        (_errors.UnknownNameError, ValueError),
        (_errors.ModelError, ValueError),
        (_errors.MissingExtraError, ImportError),
        (_errors.RecordError, ValueError),
        (_errors.GenerationError, RuntimeError),
    ],
)
def test_errors_are_also_what_python_users_catch(error, builtin):
    assert issubclass(error, builtin)


def test_near_misses_ignore_case():
    assert "did you mean 'clip'?" in str(_errors.unknown_name("scorer", "CLIP", ["clip", "memorability"]))
    assert "did you mean" not in str(_errors.unknown_name("scorer", "zzz", ["clip"]))
