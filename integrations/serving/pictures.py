"""From the bytes of a request to pictures, within bounds; reasons tell nothing of the machine."""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings

from PIL import Image

from ..._errors import ImageError
from ...scorers.images import as_pil

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is decoded; Pillow knows more, of which one starts another program."""
ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")


def read_picture(data: bytes, pixels: int) -> Image.Image:
    """Return an RGB picture, as `as_pil` reads one, of at most so many pixels.

    Raises:
        ImageError: it cannot be read, or is too large; before it is decoded.

    >>> read_picture(b"no picture", 100)
    Traceback (most recent call last):
    ...
    cogguided._errors.ImageError: it is no picture in one of PNG, JPEG, WEBP, GIF, BMP, TIFF
    """
    with _opened(data, pixels) as opened:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return as_pil(opened)
        except ImageError as error:
            reason = str(error).rpartition("cannot be read as an image")[2].strip() or str(error)
            raise ImageError(f"it cannot be read: {ADDRESS.sub('the file', reason).strip('()')}") from None


def count_pixels(data: bytes, most: int) -> int:
    """Return how many pixels a picture has, by its header.

    Raises:
        ImageError: it is none, or has more than `most`.

    >>> count_pixels(from_base64(to_base64(Image.new("RGB", (2, 3)))), 100)
    6
    """
    with _opened(data, most) as opened:
        return int(opened.width * opened.height)


def _opened(data: bytes, most: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ours is the lower bound
            opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception:  # a damaged file can make a decoder raise anything
        raise ImageError(f"it is no picture in one of {', '.join(FORMATS)}") from None
    if opened.width * opened.height > most:
        raise ImageError(f"{opened.width}x{opened.height} is more than {most} pixels")
    return opened


def from_base64(text: str) -> bytes:
    """Return the bytes of base64, or of a data URL with it.

    Raises:
        ImageError: it is none.

    >>> from_base64("data:image/png;base64,aGk="), from_base64("aGk=")
    (b'hi', b'hi')
    """
    if text[:5].lower() == "data:":
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise ImageError("expected a data URL in base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ImageError("it is not base64") from None


def to_base64(picture: Image.Image) -> str:
    """Return a picture as PNG in base64.

    >>> read_picture(from_base64(to_base64(Image.new("RGB", (2, 1), "red"))), 2).getpixel((1, 0))
    (255, 0, 0)
    """
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()
