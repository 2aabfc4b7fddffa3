"""For plain diffusers: a `CogGuidedPipeline` of any family, by `custom_pipeline=`.

>>> from diffusers import DiffusionPipeline
>>> pipe = DiffusionPipeline.from_pretrained(
...     folder, custom_pipeline=cogguided.pipelines.CUSTOM_PIPELINE, trust_remote_code=True, target="clip"
... )

diffusers copies this file elsewhere and runs it on its own, hence the absolute imports. It looks for the one
pipeline class in it, reads the components off the constructor's signature, and calls that. Here it finds a
constructor that takes any components, asks `extract_init_dict` what there is to load, and gets a pipeline of
the checkpoint's own family.
"""

import inspect
from collections import defaultdict
from typing import Any

import diffusers
from diffusers import DiffusionPipeline

from cogguided import pipelines


class CogGuided(DiffusionPipeline):
    """Making one gives a `CogGuidedPipeline`."""

    _optional_components = ["components"]  # noqa: RUF012  # the catch-all is not itself a component to be loaded

    def __new__(
        cls, base: Any = None, target: Any = None, scorer: Any = None, guidance: Any = None, **components: Any
    ) -> Any:
        """Make the pipeline of the checkpoint's family from its loaded components."""
        components.pop("components", None)
        arguments = {**dict.fromkeys(base["optional"]), **components, **base["given"], **base["parameters"]}
        pipe = base["class"](**arguments)
        guided = pipelines.CogGuidedPipeline.from_pipe(pipe, target=target, scorer=scorer, guidance=guidance)
        guided.read_settings_when_named()
        return guided

    def __init__(
        self,
        base: Any = None,
        target: Any = None,
        scorer: Any = None,
        guidance: Any = None,
        **components: Any,
    ) -> None:
        """Only its signature is read: `__new__` returns an object of another class."""

    @classmethod
    def _get_signature_types(cls) -> dict[str, Any]:
        """Any component may be of any type; the family's own constructor knows better."""
        return defaultdict(lambda: (inspect.Signature.empty,))

    @classmethod
    def extract_init_dict(
        cls, config_dict: dict[str, Any], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Split a `model_index.json` into components to load and one argument `base` with all the rest."""
        family = getattr(diffusers, config_dict["_class_name"])
        modules, optional = DiffusionPipeline._get_signature_keys(family)
        given = {name: kwargs.pop(name) for name in modules if name in kwargs}
        parameters = {name: kwargs.pop(name) for name in optional if name in kwargs}
        init, unused, hidden = family.extract_init_dict(config_dict, **kwargs)
        parameters = {**{name: init.pop(name) for name in optional if name in init}, **parameters}
        init = {name: value for name, value in init.items() if name not in given}
        base = {
            "class": family,
            "given": given,
            "parameters": parameters,
            "optional": [name for name in modules if name in family._optional_components],
        }
        return {**init, "base": base}, unused, hidden
