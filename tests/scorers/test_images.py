import io
import struct
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from cogguided._errors import ImageError, InputError
from cogguided.scorers.images import as_pil, check_images, load_images, tensor_to_pil, to_tensor


def pixel(image, where=(0, 0)):
    return as_pil(image).getpixel(where)


@pytest.mark.parametrize(
    ("mode", "colour", "rgb"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 128, (128, 128, 128)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (255, 128, 128), (255, 255, 255)),
        ("HSV", (0, 255, 255), (255, 0, 0)),
        ("LA", (0, 0), (255, 255, 255)),
        ("LA", (0, 255), (0, 0, 0)),
        ("RGBA", (255, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (255, 0, 0, 128), (255, 127, 127)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 32896, (128, 128, 128)),
        ("I;16L", 32896, (128, 128, 128)),
        ("I;16B", 32896, (128, 128, 128)),
        ("I;16N", 32896, (128, 128, 128)),
        ("RGBX", (1, 2, 3, 0), (1, 2, 3)),
        ("LAB", (255, 128, 128), (255, 255, 255)),
        ("LAB", (138, 209, 198), (251, 5, 4)),  # red, as near as eight bits of a and b come
        ("La", (64, 128), (191, 191, 191)),
        ("RGBa", (64, 0, 0, 128), (191, 127, 127)),
        ("PA", (0, 255), (0, 0, 0)),
        ("PA", (0, 0), (255, 255, 255)),
    ],
)
def test_modes(mode, colour, rgb):
    picture = as_pil(Image.new(mode, (3, 2), colour))
    assert picture.mode == "RGB"
    assert picture.size == (3, 2)
    np.testing.assert_allclose(picture.getpixel((0, 0)), rgb, atol=1)


def test_palette_with_and_without_transparency(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    assert pixel(palette, (1, 0)) == (0, 255, 0)
    palette.save(tmp_path / "index.png", transparency=1)
    palette.save(tmp_path / "bytes.png", transparency=bytes([255, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("index.png", "bytes.png"):
            assert pixel(tmp_path / name, (0, 0)) == (0, 0, 0)
            assert pixel(tmp_path / name, (1, 0)) == (255, 255, 255)


def test_grey_with_a_transparent_colour(tmp_path):
    Image.new("L", (2, 2), 7).save(tmp_path / "grey.png", transparency=7)
    assert pixel(tmp_path / "grey.png") == (255, 255, 255)


def test_sixteen_bit_file(tmp_path):
    grey = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    assert [pixel(tmp_path / "deep.png", (x, 0))[0] for x in range(3)] == [0, 100, 255]


def test_integers_without_a_white_point_are_refused():
    with pytest.raises(ImageError, match="32-bit integers has no defined white; save it with 8 or 16 bits"):
        as_pil(Image.new("I", (2, 2)))


@pytest.mark.parametrize(
    ("grey", "expected"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 1.0, 2.0], [0, 1, 2]), ([0, 128, 255], [0, 128, 255])],
)
def test_floats_are_read_where_their_white_is_known(tmp_path, grey, expected):
    Image.fromarray(np.array([grey], dtype=np.float32)).save(tmp_path / "float.tif")
    assert [pixel(tmp_path / "float.tif", (x, 0))[0] for x in range(3)] == expected


@pytest.mark.parametrize(
    ("grey", "found"),
    [
        ([0, np.nan], "it holds numbers that are not finite"),
        ([-3.0, 0.5], "its numbers run from -3 to 0.5, expected floats in"),
        ([0, 900.0], "its numbers run from 0 to 900, expected floats in"),
    ],
)
def test_floats_are_refused_with_what_was_found(tmp_path, grey, found):
    Image.fromarray(np.array([grey], dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ImageError, match=rf"float\.tif.*{found}"):
        as_pil(tmp_path / "float.tif")


def test_exif_orientation(tmp_path):
    picture = Image.new("RGB", (4, 2), "white")
    picture.putpixel((0, 0), (255, 0, 0))
    exif = picture.getexif()
    exif[0x0112] = 6  # turn right to view
    picture.save(tmp_path / "turned.png", exif=exif)
    upright = as_pil(tmp_path / "turned.png")
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 0, 0)


def test_first_frame_of_an_animation_and_the_users_place_in_it_is_kept():
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    opened = Image.open(file)
    opened.seek(1)
    assert pixel(opened) == (255, 0, 0)
    assert opened.tell() == 1


def test_huge_images_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    Image.new("1", (300, 200)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    decoded = []
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: decoded.append(self))
    with pytest.raises(ImageError, match=r"huge\.png.*MAX_IMAGE_PIXELS"):  # beyond twice the limit
        as_pil(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    with pytest.raises(ImageError, match=r"huge\.png.*MAX_IMAGE_PIXELS"):  # Pillow would only warn
        as_pil(path)
    assert not decoded
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.undo()
    assert as_pil(path).size == (300, 200)


def test_broken_files_name_the_file(tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(whole, "PNG")
    (tmp_path / "cut.png").write_bytes(whole.getvalue()[:1000])
    (tmp_path / "folder.png").mkdir()
    for name in ("text.png", "cut.png", "folder.png", "missing.png"):
        with pytest.raises(ImageError, match=name):
            as_pil(tmp_path / name)


def test_a_broken_image_does_not_stop_the_batch(tmp_path):
    (tmp_path / "broken.png").write_text("no")
    batch = [Image.new("RGB", (2, 2)), tmp_path / "broken.png", Image.new("I", (2, 2))]
    pictures, errors = load_images(batch, on_error="nan")
    assert [picture is not None for picture in pictures] == [True, False, False]
    assert errors[0] is None
    assert "broken.png" in errors[1]
    with pytest.raises(ImageError, match=r"broken\.png"):
        load_images(batch)


def test_tensors_round_trip_and_report_pixels_that_are_not_finite():
    tensor = torch.rand(3, 3, 5, 7)
    tensor[1, 0, 0, 0] = torch.nan
    pictures, errors = load_images(tensor, on_error="nan")
    torch.testing.assert_close(to_tensor([pictures[0]])[0], tensor[0], atol=0.5 / 255 + 1e-6, rtol=0)
    assert pictures[1] is None
    assert "not finite" in errors[1]
    assert tensor_to_pil(tensor[2]).size == (7, 5)


@pytest.mark.parametrize(
    "images",
    [
        Image.new("RGB", (2, 2)),
        "one.png",
        torch.zeros(3, 4, 4),
        torch.zeros(1, 4, 4, 3),
        torch.zeros(1, 3, 4, 4, dtype=torch.uint8),
        torch.full((1, 3, 4, 4), 255.0),
        torch.full((1, 3, 4, 4), -1.0),
    ],
)
def test_what_is_not_a_batch_of_images_is_refused(images):
    with pytest.raises(InputError, match="images: expected"):
        check_images(images)


def test_things_that_are_no_images_are_always_an_error():
    with pytest.raises(InputError, match="int"):
        load_images([3], on_error="nan")


def tiff_12(value, width=4, height=2):
    """A grey TIFF of 12 bits, packed, written by hand: Pillow reads these and writes none."""
    row = bytes([value >> 4, ((value & 15) << 4) | (value >> 8), value & 255]) * (width // 2)
    facts = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: height, 279: height * len(row)}
    facts[273] = 8 + 2 + 12 * len(facts) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in facts.items())
    return b"II*\0" + struct.pack("<IH", 8, len(facts)) + entries + struct.pack("<I", 0) + row * height


def psd_with_a_layer(colour=(200, 10, 10)):
    """A picture of 2 x 2 with one layer, as Photoshop lays it out (its file format specification)."""
    planes = [bytes([value]) * 4 for value in colour]
    record = struct.pack(">4iH", 0, 0, 2, 2, 3)
    record += b"".join(struct.pack(">hI", channel, 2 + 4) for channel in range(3))
    extra = struct.pack(">II", 0, 0) + b"\x03one"
    record += b"8BIMnorm" + bytes([255, 0, 0, 0]) + struct.pack(">I", len(extra)) + extra
    layers = struct.pack(">h", 1) + record + b"".join(struct.pack(">H", 0) + plane for plane in planes)
    section = struct.pack(">I", len(layers)) + layers + struct.pack(">I", 0)
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 2, 2, 8, 3) + struct.pack(">II", 0, 0)
    return head + struct.pack(">I", len(section)) + section + struct.pack(">H", 0) + b"".join(planes)


@pytest.mark.parametrize(("value", "seen"), [(4095, 255), (0, 0), (2048, 128)])
def test_grey_is_scaled_by_the_files_depth(tmp_path, value, seen):
    (tmp_path / "a.tif").write_bytes(tiff_12(value))
    assert as_pil(tmp_path / "a.tif").getpixel((0, 0)) == (seen,) * 3
    Image.fromarray(np.full((2, 2), 65535, np.uint16)).save(tmp_path / "b.tif")
    assert as_pil(tmp_path / "b.tif").getpixel((0, 0)) == (255,) * 3


def test_a_layered_psd_is_read_where_it_stands(tmp_path):
    (tmp_path / "a.psd").write_bytes(psd_with_a_layer())
    with Image.open(tmp_path / "a.psd") as opened:
        assert opened.is_animated or opened.tell() == 1
    assert as_pil(tmp_path / "a.psd").getpixel((0, 0)) == (200, 10, 10)


def swapped_profile():
    """A profile in which red and green have changed places, made of Pillow's sRGB: no file of ours is needed."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", data[128:132])[0]
    for place in range(count):
        at = 132 + 12 * place
        name = bytes(data[at : at + 4])
        if name in (b"rXYZ", b"gXYZ"):
            data[at : at + 4] = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}[name]
    return bytes(data).replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be")).replace(b"sRGB b", b"mine b")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_come_to_srgb_by_the_pictures_profile(tmp_path, mode):
    picture = Image.new("RGB", (4, 4), (255, 0, 0)).convert(mode)
    picture.save(tmp_path / "a.png", icc_profile=swapped_profile())
    red, green, _ = as_pil(tmp_path / "a.png").getpixel((0, 0))
    assert green > 250 > 5 > red


def test_a_profile_that_is_srgb_broken_or_of_another_kind_changes_nothing(tmp_path):
    picture = Image.new("RGB", (4, 4), (200, 100, 50))
    for data in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"broken", b""):
        picture.save(tmp_path / "a.png", icc_profile=data)
        assert as_pil(tmp_path / "a.png").getpixel((0, 0)) == (200, 100, 50)
    Image.new("L", (4, 4), 100).save(tmp_path / "b.png", icc_profile=swapped_profile())
    assert as_pil(tmp_path / "b.png").getpixel((0, 0)) == (100,) * 3
