"""From whatever a user has (path, PIL image in any mode, tensor) to RGB pictures that a model can see."""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageCms, ImageOps

from .._errors import ImageError, InputError
from .base import ImageInput

Floats = npt.NDArray[np.float32]
_TOLERANCE = 1e-3  # how far a pixel may leave [0, 1] before the tensor is taken for one on another scale


def as_pil(image: Image.Image | str | Path) -> Image.Image:
    """Read one picture as 8-bit RGB, as a viewer would show it on a white page.

    Palette, grey, CMYK and 16-bit pictures are converted (of a TIFF with 9 to 15 bits the largest number is
    white; of floats 1, or 255 where there are larger ones), colours are brought to sRGB by the profile that the
    picture carries (one that cannot be read, or is of another kind of colour, is left out, as viewers do),
    transparent parts become white, the EXIF orientation is applied, and of an animation the first frame is taken.
    A picture with more pixels than ``PIL.Image.MAX_IMAGE_PIXELS`` is refused before it is decoded.

    Raises:
        ImageError: the picture cannot be read or has no defined white (mode "I", floats beyond 255 or below 0).
        InputError: neither an image nor a path.

    >>> as_pil(Image.new("LA", (2, 1), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    if isinstance(image, Image.Image):
        return _convert(image, _describe(image))
    if not isinstance(image, str | Path):
        raise InputError(f"expected a PIL image or a path, got {type(image).__name__}")
    try:
        if not stat.S_ISREG(Path(image).stat().st_mode):  # a pipe would be waited for
            raise ImageError(f"{image}: is no regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(image) as opened:
                return _convert(opened, str(image))
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{image}: no such file") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{image}: too large; raise PIL.Image.MAX_IMAGE_PIXELS to allow it ({error})"
        ) from error
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise ImageError(f"{image}: cannot be read as an image ({error})") from error


def _describe(image: Image.Image) -> str:
    filename = str(getattr(image, "filename", "") or "")
    return filename or f"PIL image {image.mode} {image.width}x{image.height}"


def name_of(image: Image.Image | str | Path | torch.Tensor, index: int) -> str:
    """Return what an error calls an image of a batch: its file where there is one.

    >>> name_of(Path("a.png"), 3), name_of(torch.zeros(3, 4, 4), 3)
    ('a.png', 'image 3')
    """
    if isinstance(image, torch.Tensor):
        return f"image {index}"
    return _describe(image) if isinstance(image, Image.Image) else str(image)


def _convert(image: Image.Image, where: str) -> Image.Image:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ImageError(
            f"{where}: {image.width}x{image.height} is more than {limit} pixels; "
            "shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS"
        )
    if image.width == 0 or image.height == 0:
        raise ImageError(f"{where}: has no pixels")
    if image.mode == "I":
        raise ImageError(f"{where}: grey of 32-bit integers has no defined white; save it with 8 or 16 bits")
    try:
        return _first_frame_rgb(image)
    except Exception as error:  # a lazily opened file is decoded only here
        raise ImageError(f"{where}: cannot be read as an image ({error})") from error


def _first_frame_rgb(image: Image.Image) -> Image.Image:
    frame = image.tell() if getattr(image, "is_animated", False) else 0
    moved = bool(frame) and _rewound(image)
    white, profile = _white(image), image.info.get("icc_profile")
    try:
        upright = ImageOps.exif_transpose(image)
    finally:
        if moved:
            image.seek(frame)
    if upright.mode.startswith("I;16"):
        grey = np.asarray(upright, dtype=np.float64).clip(0, white) * (255 / white)
        upright = Image.fromarray(np.rint(grey).astype(np.uint8))
    if upright.mode == "F":
        upright = _of_floats(np.asarray(upright))
    if upright.mode == "La":  # Pillow knows one way out of it
        upright = upright.convert("LA")
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        in_srgb = _in_srgb(rgba.convert("RGB"), profile).convert("RGBA")
        in_srgb.putalpha(rgba.getchannel("A"))
        page = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(page, in_srgb).convert("RGB")
    return _in_srgb(upright, profile).convert("RGB")


def _of_floats(grey: Floats) -> Image.Image:
    """Return grey of 8 bits of floats (H, W) in [0, 1] or in [0, 255]."""
    if not np.isfinite(grey).all():
        raise ValueError("it holds numbers that are not finite")
    low, high = float(grey.min()), float(grey.max())
    if low < 0 or high > 255:
        raise ValueError(f"its numbers run from {low:g} to {high:g}, expected floats in [0, 1] or [0, 255]")
    return Image.fromarray(np.rint(grey * (255 if high <= 1 else 1)).astype(np.uint8))


def _rewound(image: Image.Image) -> bool:
    """Go to the first frame; False where the frame that it stands at is the first (PSD counts from 1)."""
    try:
        image.seek(0)
    except EOFError:
        return False
    return True


def _white(image: Image.Image) -> int:
    """The number that is white in 16-bit grey: what a TIFF's bits hold, else 65535."""
    bits = getattr(image, "tag_v2", {}).get(258, 16)  # BitsPerSample
    depth = int(bits[0]) if isinstance(bits, tuple) else int(bits)
    return 2**depth - 1 if 8 < depth < 16 else 65535


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Bring a picture's colours to sRGB by its profile, where it has a usable one of another space."""
    if not profile:
        return image
    modes = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = modes.get(source.profile.xcolor_space.strip(), "")
        grey = image.mode in ("1", "L", "LA")
        fits = {"L": grey, "CMYK": image.mode == "CMYK", "RGB": not grey and image.mode != "CMYK"}.get(mode, False)
        if not fits or "sRGB" in ImageCms.getProfileDescription(source):
            return image
        target = ImageCms.createProfile("sRGB")
        made = ImageCms.profileToProfile(image.convert(mode), source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return image
    return image if made is None else made


def check_images(images: ImageInput) -> None:
    """Refuse what is not a batch of images, and say what to pass instead.

    Raises:
        InputError: a single image or path, or a tensor of another shape, type or scale.

    >>> check_images(torch.rand(2, 3, 8, 8))
    """
    if isinstance(images, Image.Image | str | Path):
        raise InputError("images: expected a list of images or paths; for a single one pass [image]")
    if not isinstance(images, torch.Tensor):
        return
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise InputError(
            f"images: expected a float tensor (B, 3, H, W) in [0, 1], "
            f"got {images.dtype} {tuple(images.shape)}"
        )
    pixels = images.detach()
    if bool(((pixels < -_TOLERANCE) | (pixels > 1 + _TOLERANCE)).any()):
        low, high = float(pixels.nan_to_num(0.5).min()), float(pixels.nan_to_num(0.5).max())
        raise InputError(f"images: expected values in [0, 1], got {low:.3g} to {high:.3g}")


def load_images(
    images: ImageInput, on_error: Literal["raise", "nan"] = "raise"
) -> tuple[list[Image.Image | None], list[str | None]]:
    """Read a batch of B pictures as 8-bit RGB; return the pictures, and why one is missing.

    With ``on_error="nan"`` a broken picture is None with its reason beside it, and the rest goes on; with
    ``"raise"`` it is an error. A tensor image with pixels that are not finite counts as broken.

    Raises:
        ImageError: a picture cannot be read, with ``on_error="raise"``.
        InputError: not a batch of images (see `check_images`).

    >>> pictures, errors = load_images([Image.new("L", (2, 2)), "missing.png"], on_error="nan")
    >>> [picture is None for picture in pictures], errors
    ([False, True], [None, 'missing.png: no such file'])
    """
    check_images(images)
    pictures: list[Image.Image | None] = []
    errors: list[str | None] = []
    for index in range(len(images)):
        try:
            item = images[index]
            picture = (
                tensor_to_pil(item, name_of(item, index)) if isinstance(item, torch.Tensor) else as_pil(item)
            )
        except ImageError as error:
            if on_error == "raise":
                raise
            pictures.append(None)
            errors.append(str(error))
        else:
            pictures.append(picture)
            errors.append(None)
    return pictures, errors


def tensor_to_pil(pixels: torch.Tensor, where: str = "image") -> Image.Image:
    """Round one float image (3, H, W) in [0, 1] to an 8-bit RGB picture.

    Raises:
        ImageError: a pixel is not finite.

    >>> tensor_to_pil(torch.ones(3, 4, 5)).size
    (5, 4)
    """
    pixels = pixels.detach()
    if not bool(pixels.isfinite().all()):
        raise ImageError(f"{where}: has pixels that are not finite (NaN or inf)")
    rounded = (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(rounded.permute(1, 2, 0).cpu().numpy())


def to_tensor(pictures: Sequence[Image.Image]) -> torch.Tensor:
    """Stack RGB pictures of one size to a float32 tensor (B, 3, H, W) in [0, 1].

    >>> to_tensor([Image.new("RGB", (5, 4), "white")]).shape
    torch.Size([1, 3, 4, 5])
    """
    arrays = np.stack([np.asarray(picture, dtype=np.uint8) for picture in pictures])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255
