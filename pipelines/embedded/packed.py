"""The embedded model's transformer and VAE, whose weights are kept compressed.

The safetensors file of each goes through what HDF5 calls shuffle and gzip: the first bytes of all 16-bit numbers, and
then the second ones, gzipped. What that saves are zeros, which one frame leaves many of in a video model's VAE, and
the exponents, which are much alike.

``model_index.json`` names the classes here, which diffusers finds once this module is imported, as
`cogguided.pipelines` does. What they load is of diffusers' own class, so that `save_pretrained` writes what needs
nothing of ours.
"""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from diffusers import AutoencoderKLQwenImage, ModelMixin, QwenImageTransformer2DModel

from ..._errors import ModelError

# diffusers asks the module that has a component's class for `ModelMixin`, to see how the class is loaded
__all__ = ["ModelMixin", "PackedTransformer", "PackedVAE", "pack", "unpack"]

PLAIN = "diffusion_pytorch_model.safetensors"
PACKED = f"{PLAIN}.shuffle.gz"


def pack(folder: Path) -> None:
    """Compress the weights that diffusers wrote into a folder; the same weights give the same file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     _ = (Path(name) / PLAIN).write_bytes(b"0123" * 100)
    ...     pack(Path(name))
    ...     [file.name for file in Path(name).iterdir()], unpack(Path(name)) == b"0123" * 100
    (['diffusion_pytorch_model.safetensors.shuffle.gz'], True)
    """
    plain = folder / PLAIN
    data = plain.read_bytes()
    (folder / PACKED).write_bytes(gzip.compress(data[0::2] + data[1::2], 9, mtime=0))
    plain.unlink()


def unpack(folder: Path) -> bytearray:
    """Return the safetensors file that was compressed.

    Raises:
        ModelError: it is not there, or damaged.
    """
    try:
        data = gzip.decompress((folder / PACKED).read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ModelError(
            f"{folder / PACKED}: missing or damaged ({error}); install cogguided again, or check the file out again"
        ) from error
    plain = bytearray(len(data))
    plain[0::2], plain[1::2] = data[: len(data) // 2], data[len(data) // 2 :]
    return plain


class _Packed:
    opened: ClassVar[Any]

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Load it as `opened`, with the arguments that this takes.

        Raises:
            ModelError: its file is not there, or damaged.
        """
        home = Path(folder, kwargs.pop("subfolder", None) or "")
        if (home / PLAIN).is_file():  # trained just now
            return cls.opened.from_pretrained(home, **kwargs)
        # Windows keeps a file while it is mapped into memory
        with TemporaryDirectory(prefix="cogguided-", ignore_cleanup_errors=True) as name:
            shutil.copyfile(home / "config.json", Path(name, "config.json"))
            Path(name, PLAIN).write_bytes(unpack(home))
            model = cls.opened.from_pretrained(name, **kwargs)
        model.register_to_config(_name_or_path=str(home))
        return model


class PackedTransformer(_Packed, QwenImageTransformer2DModel):
    """Loads a `QwenImageTransformer2DModel`."""

    opened = QwenImageTransformer2DModel


class PackedVAE(_Packed, AutoencoderKLQwenImage):
    """Loads an `AutoencoderKLQwenImage`."""

    opened = AutoencoderKLQwenImage
