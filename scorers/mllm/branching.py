"""Continue one prompt in many ways at once: a tree of tokens on a shared, cached prefix.

The nodes of the tree are packed into one sequence in which each sees the prefix and its own ancestors only
(tree attention, Miao et al. 2023, SpecInfer, arXiv 2305.09781). Image and prompt are computed once, and a
node costs as much as one more prompt token.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel

from ..._errors import ModelError

Inputs = dict[str, torch.Tensor]

_OF_IMAGES = ("cross_attention_mask", "image_attention_mask")
_PLAIN = ("input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "image_embeds_position_mask")
_PER_TOKEN = (*_PLAIN, *_OF_IMAGES)
_BRANCHABLE = {"full_attention", "sliding_attention"}


def cut_prefix(inputs: Inputs, num_dropped: int | Sequence[int]) -> tuple[Inputs, list[int]]:
    """Drop the last tokens of every prompt in a right-padded batch; also return the lengths that remain.

    `num_dropped` is one number for all prompts, or one each.

    >>> ids = torch.tensor([[5, 6, 7], [8, 9, 0]])
    >>> mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    >>> cut, lengths = cut_prefix({"input_ids": ids, "attention_mask": mask}, 1)
    >>> cut["attention_mask"].tolist(), lengths
    ([[1, 1], [1, 0]], [2, 1])
    """
    totals: list[int] = inputs["attention_mask"].sum(dim=1).tolist()
    dropped = [num_dropped] * len(totals) if isinstance(num_dropped, int) else num_dropped
    lengths = [total - less for total, less in zip(totals, dropped, strict=True)]
    width = max(lengths)
    cut = {}
    for key, tensor in inputs.items():
        if key not in _PER_TOKEN:
            cut[key] = tensor
            continue
        cut[key] = tensor[:, :width].clone()
        for row, length in enumerate(lengths):
            if key not in _OF_IMAGES:
                cut[key][row, length:] = 0
    return cut, lengths


def check_branchable(model: PreTrainedModel) -> None:
    """Refuse models with layers whose memory of the prefix cannot be shared by branches.

    Raises:
        ModelError: a layer type (a recurrent state, say) that is not plain or sliding attention.

    A plain transformer passes; see ``tests/scorers/test_branching.py`` for both cases.
    """
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if not kinds <= _BRANCHABLE:
        raise ModelError(
            f"layers of type {sorted(kinds - _BRANCHABLE)} cannot be branched from a shared cache"
        )


def cache_keyword(model: PreTrainedModel) -> str:
    """Name under which the model's forward takes its cache.

    It is ``cache`` from transformers 5.24 on, where the older ``past_key_values`` gives a FutureWarning.
    Decorators of forward are seen through.

    >>> class Old(torch.nn.Module):
    ...     def forward(self, input_ids, past_key_values=None, cache_position=None): ...
    >>> cache_keyword(Old())
    'past_key_values'
    """
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


@contextmanager
def unrounded_head(model: PreTrainedModel) -> Iterator[None]:
    """Let a vocabulary head in half precision give float32 logits, on CUDA and without gradients, while inside.

    A logit near 30 is rounded to the next 1/8 in bfloat16, which moves a digit's probability by up to 6 %. The
    product is accumulated in float32 anyway: it is only not rounded at the end. Elsewhere, and for a head that is no
    plain linear layer, nothing is changed.

    A model in float32 is left alone:

    >>> with unrounded_head(torch.nn.Module()):
    ...     pass
    """
    embeddings: Any = getattr(model, "get_output_embeddings", None)
    head: Any = None if embeddings is None else embeddings()
    plain: bool = type(head) is torch.nn.Linear  # not one of few bits, nor with an adapter on it
    if (
        not plain
        or head.bias is not None
        or head.weight.dtype not in (torch.bfloat16, torch.float16)
        or head.weight.device.type != "cuda"
        or torch.is_grad_enabled()
        or not hasattr(torch.ops.aten.mm, "dtype")  # before torch 2.8
    ):
        yield
        return
    weight = head.weight

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1]).to(weight.dtype)
        logits: torch.Tensor = torch.ops.aten.mm.dtype(rows, weight.T, torch.float32)
        return logits.view(*hidden.shape[:-1], -1)

    vars(head)["forward"] = forward
    try:
        yield
    finally:
        del vars(head)["forward"]


def prefill(model: PreTrainedModel, inputs: Inputs, cache: Any = None) -> tuple[Any, torch.Tensor | None]:
    """Run the prompts; return what the model says, cache included, and the positions that its decoder used.

    Only the decoder knows them: with M-RoPE they depend on the images' sizes. The model makes its own cache if none
    is given.

    An executed example is in ``tests/scorers/test_branching.py``.
    """
    seen: list[torch.Tensor | None] = []

    def note_positions(_module: object, _args: object, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs.get("position_ids"))

    hook = model.get_decoder().register_forward_pre_hook(note_positions, with_kwargs=True)
    try:
        memory: dict[str, Any] = {} if cache is None else {cache_keyword(model): cache}
        said = model(**inputs, **memory, use_cache=True, logits_to_keep=1)
    finally:
        hook.remove()
    return said, seen[0]


class Branches:
    """A tree of continuations for each prompt of a batch, on a cache that holds the prompts.

    Nodes are named by their slot, an integer that counts on over all `extend` calls; -1 is the prompt itself.
    Rows with fewer nodes than others are padded, and the padding is seen by nobody.
    """

    def __init__(self, model: PreTrainedModel, inputs: Inputs, lengths: Sequence[int]) -> None:
        """Compute the prompts (right-padded; `lengths` tokens each count), images included, once."""
        self._model = model
        self._cache = (
            DynamicCache()
        )  # without a config: also sliding layers keep all, the mask does the sliding
        self._cache_keyword = cache_keyword(model)
        self._prefix_mask = inputs["attention_mask"].bool()
        self._lengths = np.asarray(lengths)
        self._cross_mask: torch.Tensor | None = None
        rows = torch.arange(len(lengths))
        if "cross_attention_mask" in inputs:
            self._cross_mask = inputs["cross_attention_mask"][rows, torch.as_tensor(lengths) - 1]
        positions = prefill(model, inputs, self._cache)[1]
        self._planes = 0 if positions is None or positions.ndim == 2 else positions.shape[0]
        if positions is None:
            self._start = self._lengths
        else:
            planes = positions.reshape(-1, positions.shape[-2], positions.shape[-1]).cpu().numpy()
            planes = np.broadcast_to(planes, (planes.shape[0], len(lengths), planes.shape[2]))
            self._start = np.array([planes[:, row, :n].max() + 1 for row, n in enumerate(lengths)])
        self._sees = np.zeros((len(lengths), 0, 0), dtype=bool)  # [row, node, node or ancestor]
        self._depth = np.zeros((len(lengths), 0), dtype=np.int64)

    @property
    def num_tokens(self) -> int:
        """Size of the vocabulary."""
        return int(self._model.config.get_text_config().vocab_size)

    @property
    def num_slots(self) -> int:
        """How many nodes each row has so far, padding included."""
        return int(self._depth.shape[1])

    def extend(
        self,
        tokens: Sequence[Sequence[int]],
        parents: Sequence[Sequence[int]],
        keep: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Add nodes to each row and return the logits (B, N, vocabulary) that follow them.

        `tokens[row]` are the new nodes' tokens and `parents[row]` their parents' slots, parents first. Node j
        of a row gets the slot `num_slots + j`, counted before the call. With `keep` only the logits of those
        new nodes (the same in every row) are computed and returned.
        """
        old, width = self.num_slots, max(map(len, tokens))
        self._grow(parents, width)
        ids = torch.zeros(len(tokens), width, dtype=torch.long)
        for row, row_tokens in enumerate(tokens):
            ids[row, : len(row_tokens)] = torch.tensor(row_tokens, dtype=torch.long)
        device = self._model.device
        positions = torch.from_numpy(self._start[:, None] + self._depth[:, old:]).to(device)
        if self._planes:
            positions = positions[None].expand(self._planes, -1, -1)
        extra: dict[str, Any] = {self._cache_keyword: self._cache}
        if self._cross_mask is not None:
            extra["cross_attention_mask"] = self._cross_mask[:, None].expand(-1, width, -1, -1)
        with unrounded_head(self._model):
            logits: torch.Tensor = self._model(
                input_ids=ids.to(device),
                attention_mask=self._mask(old),
                position_ids=positions,
                use_cache=True,
                logits_to_keep=0 if keep is None else torch.tensor(keep, device=device),
                **extra,
            ).logits
        return logits

    def _grow(self, parents: Sequence[Sequence[int]], width: int) -> None:
        old, rows = self.num_slots, np.arange(len(parents))
        sees = np.zeros((len(parents), old + width, old + width), dtype=bool)
        sees[:, :old, :old] = self._sees
        depth = np.pad(self._depth, ((0, 0), (0, width)))
        above = np.full((len(parents), width), -1)
        for row, row_parents in enumerate(parents):
            above[row, : len(row_parents)] = row_parents
        for node in range(width):
            parent, has_parent = above[:, node], above[:, node] >= 0
            sees[rows, old + node] = sees[rows, parent] & has_parent[:, None]
            sees[:, old + node, old + node] = True
            depth[:, old + node] = np.where(has_parent, depth[rows, parent] + 1, 0)
        self._sees, self._depth = sees, depth

    def _mask(self, old: int) -> torch.Tensor | dict[str, torch.Tensor]:
        device, dtype = self._model.device, self._model.dtype
        tree = torch.from_numpy(self._sees[:, old:]).to(device)
        prefix = self._prefix_mask[:, None, :].expand(-1, tree.shape[1], -1)
        allowed = torch.cat([prefix, tree], dim=2)[:, None]
        blocked = torch.finfo(dtype).min
        full = torch.zeros(allowed.shape, dtype=dtype, device=device).masked_fill_(~allowed, blocked)
        text_config = self._model.config.get_text_config()
        if "sliding_attention" not in (getattr(text_config, "layer_types", None) or ()):
            return full
        index = self._lengths[:, None] + self._depth
        prefix_index = np.broadcast_to(np.arange(prefix.shape[2]), (len(index), prefix.shape[2]))
        keys = np.concatenate([prefix_index, index], axis=1)
        near = torch.from_numpy(index[:, old:, None] - keys[:, None, :] < text_config.sliding_window).to(
            device
        )
        return {"full_attention": full, "sliding_attention": full.masked_fill(~near[:, None], blocked)}


class Reruns:
    """The same interface as `Branches` for one prompt, without a cache: each path is run from the start.

    Slow (one pass over image and prompt for every path) and free of assumptions about the model: for models
    that `Branches` does not fit, and as the reference that `Branches` is tested against.
    """

    def __init__(self, model: PreTrainedModel, inputs: Inputs, lengths: Sequence[int]) -> None:
        """Keep the one prompt, of `lengths[0]` tokens."""
        if len(lengths) != 1:
            raise ModelError(f"Reruns takes one prompt at a time, got {len(lengths)}")
        self._model = model
        self._inputs = inputs
        self._paths: list[list[int]] = []

    @property
    def num_tokens(self) -> int:
        """Size of the vocabulary."""
        return int(self._model.config.get_text_config().vocab_size)

    @property
    def num_slots(self) -> int:
        """How many nodes there are so far."""
        return len(self._paths)

    def extend(
        self,
        tokens: Sequence[Sequence[int]],
        parents: Sequence[Sequence[int]],
        keep: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Add nodes and return the logits (1, N, vocabulary) that follow them, or those to `keep`."""
        old = self.num_slots
        for token, parent in zip(tokens[0], parents[0], strict=True):
            self._paths.append([*(self._paths[parent] if parent >= 0 else []), token])
        inner = {parent for parent in parents[0] if parent >= old}
        rows: dict[int, torch.Tensor] = {}
        above = dict(zip(range(old, self.num_slots), parents[0], strict=True))
        for node in range(self.num_slots - 1, old - 1, -1):
            if node in inner:
                continue
            path = self._paths[node]
            logits = self._run(path)
            step, current = 1, node
            while current >= old and current not in rows:
                rows[current] = logits[-step]
                step, current = step + 1, above[current]
        kept = range(self.num_slots - old) if keep is None else keep
        return torch.stack([rows[old + node] for node in kept])[None]

    def _run(self, path: list[int]) -> torch.Tensor:
        """Logits (tokens, vocabulary) after each token of a path."""
        with unrounded_head(self._model):
            logits: torch.Tensor = self._model(
                **self._with(path), use_cache=False, logits_to_keep=len(path)
            ).logits
        return logits[0, -len(path) :]

    def _with(self, path: list[int]) -> Inputs:
        """The model's inputs for the prompt with a path behind it."""
        inputs = dict(self._inputs)
        for key in _PER_TOKEN:
            if key not in inputs:
                continue
            last = inputs[key][:, -1:]
            if key == "input_ids":
                added = torch.tensor([path], device=last.device)
            elif key in ("token_type_ids", "mm_token_type_ids"):
                added = torch.zeros_like(last).expand(-1, len(path))
            else:
                added = last.expand(-1, len(path), *last.shape[2:])
            inputs[key] = torch.cat([inputs[key], added], dim=1)
        return inputs


class Copies(Reruns):
    """`Reruns` that see the image once: each path goes on from a copy of the model's own cache of the prompt.

    Layers with a state (linear attention, convolutions, state spaces) are at home in it. Not for gradients.
    """

    def __init__(self, model: PreTrainedModel, inputs: Inputs, lengths: Sequence[int]) -> None:
        """Compute the one prompt, image included, once."""
        super().__init__(model, inputs, lengths)
        said, self._positions = prefill(model, inputs)
        self._memory = said[cache_keyword(model)]

    def _run(self, path: list[int]) -> torch.Tensor:
        inputs, count = self._with(path), len(path)
        extra: dict[str, Any] = {cache_keyword(self._model): copy.deepcopy(self._memory)}
        if self._positions is not None:
            planes = self._positions.shape[0] if self._positions.ndim == 3 else 0
            following = torch.arange(count, device=self._positions.device)[None] + self._positions.max() + 1
            extra["position_ids"] = following[None].expand(planes, -1, -1) if planes else following
        if "cross_attention_mask" in inputs:
            extra["cross_attention_mask"] = inputs["cross_attention_mask"][:, -count:]
        with unrounded_head(self._model):
            logits: torch.Tensor = self._model(
                input_ids=inputs["input_ids"][:, -count:],
                attention_mask=inputs["attention_mask"],
                use_cache=True,
                **extra,
            ).logits
        return logits[0, -count:]
