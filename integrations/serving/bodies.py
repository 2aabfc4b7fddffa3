"""What a request asks for: pictures and prompts out of JSON or an upload, or an answer that says what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import HTTPException, Request
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile

from ..._errors import InputError
from .fetching import fetch
from .limits import Limits
from .pictures import count_pixels, from_base64, read_picture


class ImageIn(BaseModel):
    """An image: one of the two."""

    model_config = ConfigDict(extra="forbid")
    data: str | None = Field(None, description="The file in base64, or a data URL.")
    url: str | None = Field(None, description="Where it is; only if the service allows URLs.")


class ScoreIn(BaseModel):
    """Images to score."""

    model_config = ConfigDict(extra="forbid")
    images: list[ImageIn] = Field(min_length=1)
    prompts: list[str] | None = Field(None, description="One for each image, for scorers that compare with a text.")


class GenerateIn(BaseModel):
    """An image to draw."""

    model_config = ConfigDict(extra="forbid")
    prompt: str = Field(min_length=1)
    seed: int | None = Field(None, ge=0, lt=2**63, description="Of the first candidate; none: a random one.")
    n: int = Field(4, ge=1, description="Candidates, of which the best are returned.")
    keep: int = Field(1, ge=1, description="How many of them.")
    num_inference_steps: int | None = Field(None, ge=1)
    width: int | None = Field(None, ge=8)
    height: int | None = Field(None, ge=8)


@dataclass(frozen=True)
class Ask:
    """What one request wants scored.

    Attributes:
        pictures: RGB.
        prompts: one for each, or None.
        size: how much of a pass it takes.
    """

    pictures: list[Image.Image]
    prompts: list[str] | None
    size: int


def multipart_schema() -> dict[str, Any]:
    """Return the OpenAPI description of an upload.

    >>> sorted(multipart_schema()["properties"])
    ['image', 'prompt']
    """
    file = {"type": "string", "format": "binary"}
    return {
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": {"type": "array", "items": file, "description": "One file, or several."},
            "prompt": {"type": "array", "items": {"type": "string"}, "description": "One for each image."},
        },
    }


@dataclass(frozen=True)
class Files:
    """Pictures of one request, not decoded yet.

    Attributes:
        data: of each file.
        prompts: one for each, or None.
        pixels: of all of them, by their headers.
    """

    data: list[bytes]
    prompts: list[str] | None
    pixels: int


async def read_files(request: Request, limits: Limits, urls: bool, needs_prompt: bool) -> Files:
    """Read a request for scores; URLs are fetched in threads.

    Raises:
        HTTPException: 422 with the reason, 415 for another kind of body.

    Executed in ``tests/integrations/test_serving.py``.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        sources, prompts = await _read_form(request, limits)
    elif kind == "application/json":
        sources, prompts = _read_json(await request.body(), urls)
    else:
        raise HTTPException(415, "expected application/json or multipart/form-data")
    check_prompts(prompts, len(sources), limits, needs_prompt)
    if len(sources) > limits.images:
        raise refusal(f"{len(sources)} images are more than {limits.images}")
    found = await _each(partial(_read_source, limits=limits), sources)
    pixels = sum(count for _, count in found)
    if pixels > limits.request_pixels:
        raise refusal(f"the images have {pixels} pixels together, more than {limits.request_pixels}")
    return Files([data for data, _ in found], prompts, pixels)


async def decode(files: Files, limits: Limits) -> Ask:
    """Decode the pictures of a request, in threads.

    Raises:
        HTTPException: 422: one cannot be read.

    Executed in ``tests/integrations/test_serving.py``.
    """
    pictures = await _each(partial(read_picture, pixels=limits.pixels), files.data)
    return Ask(pictures, files.prompts, len(pictures) if limits.batch > 1 else 1)


async def _each(read: Callable[[Any], Any], sources: Sequence[Any]) -> list[Any]:
    """Read all of them in threads; tell of all that cannot be read together."""

    def tried(source: Any) -> Any:
        try:
            return read(source)
        except InputError as error:
            return error

    found = await asyncio.gather(*(asyncio.to_thread(tried, source) for source in sources))
    wrong = [{"image": i, "reason": str(error)} for i, error in enumerate(found) if isinstance(error, InputError)]
    if wrong:
        raise HTTPException(422, wrong)
    return found


def refusal(reason: str) -> HTTPException:
    """Return the error of a request that cannot be followed.

    >>> refusal("no").status_code
    422
    """
    return HTTPException(422, [{"reason": reason}])


def check_prompts(prompts: Sequence[str] | None, images: int, limits: Limits, needed: bool) -> None:
    """Check the texts of a request.

    Raises:
        HTTPException: 422: none although needed, another number than images, or too long a one.

    >>> check_prompts(["a cat"], 1, Limits(), needed=True)
    """
    if prompts is None:
        if needed:
            raise refusal("this scorer compares images with a text: send one prompt for each")
        return
    if len(prompts) != images:
        raise refusal(f"{len(prompts)} prompts came with {images} images: one for each")
    if any(len(text) > limits.prompt for text in prompts):
        raise refusal(f"a prompt is longer than {limits.prompt} characters")


async def _read_form(request: Request, limits: Limits) -> tuple[list[bytes | ImageIn], list[str] | None]:
    most = {"max_files": limits.images + 1, "max_fields": limits.images + 1, "max_part_size": 4 * limits.prompt + 1}
    async with request.form(**most) as form:
        files = form.getlist("image")
        if not files or not all(isinstance(file, UploadFile) for file in files):
            raise refusal("expected the image, or several, as files named 'image'")
        texts = [text for text in form.getlist("prompt") if isinstance(text, str)]
        return [await file.read() for file in files if isinstance(file, UploadFile)], texts or None


def _read_json(body: bytes, urls: bool) -> tuple[list[bytes | ImageIn], list[str] | None]:
    asked = parsed(ScoreIn, body)
    for image in asked.images:
        if (image.data is None) == (image.url is None):
            raise refusal("each image is {'data': base64} or {'url': address}")
        if image.url is not None and not urls:
            raise refusal("this service fetches no URLs: send the image itself")
    return list(asked.images), asked.prompts


def parsed(kind: type[Any], body: bytes) -> Any:
    """Return a body of JSON as a model.

    Raises:
        HTTPException: 422; where, and why.

    >>> parsed(GenerateIn, b'{"prompt": "a cat"}').n
    4
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        wrong = [
            {"where": ".".join(map(str, found["loc"])), "reason": found["msg"]} for found in error.errors()[:10]
        ]
        raise HTTPException(422, wrong) from None


def _read_source(source: bytes | ImageIn, limits: Limits) -> tuple[bytes, int]:
    """A picture's file, and how many pixels it has."""
    if isinstance(source, bytes):
        data = source
    elif source.data is not None:
        data = from_base64(source.data)
    else:
        data = fetch(source.url or "", limits.body)
    return data, count_pixels(data, limits.pixels)
