"""Objects in, planes, the same kind of object out."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from liif_fast import image
from liif_fast.image import Planes, bleed, to_float, unpack

SIZES = [(1, 1), (1, 7), (5, 1), (3, 11)]
MODES = {  # mode -> the mode that comes back
    "1": "L", "L": "L", "LA": "LA", "La": "LA", "P": "RGB", "PA": "RGBA", "RGB": "RGB", "RGBA": "RGBA", "RGBa": "RGBA",
    "RGBX": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LAB": "RGB", "HSV": "RGB", "I": "I;16", "F": "F", "I;16": "I;16",
    "I;16L": "I;16", "I;16B": "I;16", "I;16N": "I;16",
}  # fmt: skip


def random_array(shape, dtype, seed=0):
    values = np.random.default_rng(seed).random(shape)
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else (values * np.iinfo(dtype).max).astype(dtype)


def enlarged(planes):
    """What an engine would do to it: another size, the same dtype."""
    twice = [None if p is None else p.repeat_interleave(2, 0) for p in (planes.color, planes.alpha)]
    return Planes(*twice)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("h", "w"), SIZES)
def test_pillow_modes(mode, h, w):
    im = Image.new(mode, (w, h))
    im.info.update(dpi=(300, 300), icc_profile=b"profile", other=1)
    unpacked = unpack(im)
    (frame,) = unpacked.frames
    assert frame.color.shape[:2] == (h, w)
    out = unpacked.pack([enlarged(frame)])
    assert out.mode == MODES[mode]
    assert out.size == (w, 2 * h)
    expected = {"dpi": (300, 300), "icc_profile": b"profile"}
    if mode in ("CMYK", "LAB"):
        del expected["icc_profile"]
    assert out.info == expected


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pillow_round_trip_is_exact(mode):
    bands = len(Image.new(mode, (1, 1)).getbands())
    im = Image.fromarray(random_array((5, 7, bands), np.uint8).squeeze())
    unpacked = unpack(im)
    assert np.array_equal(np.array(unpacked.pack(unpacked.frames)), np.array(im))


def test_pillow_keeps_what_an_orientation_is_applied_by():
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(random_array((4, 6, 3), np.uint8)).save(file, "PNG", exif=exif, dpi=(300, 300))
    unpacked = unpack(Image.open(file))
    packed = unpacked.pack(unpacked.frames)
    assert packed.size == (6, 4)
    assert ImageOps.exif_transpose(packed).size == (4, 6)


def test_pillow_wide_modes_keep_their_values():
    wide = random_array((3, 5), np.uint16)
    for im in (Image.fromarray(wide), Image.fromarray(wide.astype(np.int32)), Image.fromarray(wide.astype(">u2"))):
        unpacked = unpack(im)
        assert np.array_equal(unpacked.frames[0].color.numpy()[..., 0], wide)
        assert np.array_equal(np.array(unpacked.pack(unpacked.frames)), wide)
    with pytest.raises(ValueError, match=r"-7\.\.70000"):
        unpack(Image.fromarray(np.array([[-7, 70000]], np.int32)))


def test_pillow_transparency():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert unpack(palette).frames[0].alpha is None
    palette.info["transparency"] = 1
    unpacked = unpack(palette)
    assert unpacked.frames[0].alpha.flatten().tolist() == [255, 0]
    assert unpacked.pack(unpacked.frames).mode == "RGBA"
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    bits.info["transparency"] = 255
    assert unpack(bits).frames[0].alpha.flatten().tolist() == [255, 0]
    gray = Image.fromarray(np.array([[1, 2]], np.uint8))
    gray.info["transparency"] = 2
    assert unpack(gray).frames[0].alpha.flatten().tolist() == [255, 0]


def test_cmyk_without_a_usable_profile_uses_the_plain_formula():
    im = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    im.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert unpack(im).frames[0].color[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
@pytest.mark.parametrize(("h", "w"), SIZES)
def test_numpy(dtype, channels, h, w):
    array = random_array((h, w) if channels is None else (h, w, channels), dtype)
    unpacked = unpack(array)
    (frame,) = unpacked.frames
    assert frame.color.shape == (h, w, 1 if channels in (None, 1, 2) else 3)
    assert (frame.alpha is not None) == (channels in (2, 4))
    back = unpacked.pack(unpacked.frames)
    assert back.dtype == array.dtype
    assert np.array_equal(back, array.astype(np.float32) if dtype == "float64" else array)  # float32 inside
    assert unpacked.pack([enlarged(frame)]).shape == (2 * h, *array.shape[1:])


@pytest.mark.filterwarnings("error")
def test_numpy_views():
    array = random_array((6, 8, 3), np.uint8)
    frozen = array.copy()
    frozen.flags.writeable = False
    fields = np.zeros((6, 8), [("rgb", "u1", 3), ("x", "<u2")])["x"]  # strides that are no multiple of the itemsize
    for view in (array[::-1], array[:, ::-2], array[..., ::-1], array.transpose(1, 0, 2), frozen, fields):
        unpacked = unpack(view)
        assert np.array_equal(unpacked.pack(unpacked.frames), view)


@pytest.mark.parametrize("dtype", ["float16", "float32", "uint16"])
def test_numbers_that_are_not_aligned(dtype):
    values = random_array((5, 7, 3), dtype)
    array = np.frombuffer(b"." + values.tobytes(), dtype, offset=1).reshape(values.shape)
    unpacked = unpack(array)
    assert unpacked.frames[0].color.data_ptr() % values.itemsize == 0
    assert np.array_equal(unpacked.pack(unpacked.frames), values)


@pytest.mark.parametrize("dtype", image._TORCH_DTYPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("batch", [None, 1, 3])
def test_torch(dtype, channels, batch):
    shape = (channels, 5, 7) if batch is None else (batch, channels, 5, 7)
    tensor = (torch.rand(shape) * {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)).to(dtype)
    unpacked = unpack(tensor)
    assert len(unpacked.frames) == (batch or 1)
    back = unpacked.pack(unpacked.frames)
    assert back.dtype == dtype
    assert back.is_contiguous()
    assert torch.equal(back, tensor.float().double() if dtype == torch.float64 else tensor)
    assert unpacked.pack([enlarged(f) for f in unpacked.frames]).shape == (*shape[:-2], 10, 7)


class Foreign:
    """An array of another library, which shares its memory."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.float32])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_dlpack(dtype, channels):
    shape = (5, 7) if channels is None else (5, 7, channels)
    sample = torch.rand(shape)
    tensor = sample.to(dtype) if dtype.is_floating_point else (sample * 200).to(dtype)
    unpacked = image.unpack(Foreign(tensor))
    planes = unpacked.frames[0]
    assert planes.color.shape == (5, 7, 3 if channels in (3, 4) else 1)
    assert (planes.alpha is not None) == (channels in (2, 4))
    if dtype != torch.float16:
        assert planes.color.data_ptr() == tensor.data_ptr()
    back = unpacked.pack(unpacked.frames)
    assert back.dtype == dtype
    assert torch.equal(back.float(), tensor.float())


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_dlpack_of_negative_strides(kind):
    """`torch.from_dlpack` ends the process there."""
    array = np.arange(5 * 7 * 3).reshape(5, 7, 3).astype(kind) / (1 if kind == np.uint8 else 105)
    array = array.astype(kind)
    turned = image.unpack(Foreign(array[:, ::-1, ::-1])).frames[0].color
    assert np.array_equal(turned.numpy(), array[:, ::-1, ::-1])


def test_dlpack_of_negative_strides_on_a_gpu():
    """As CuPy's are; that of its copy is as here, for want of one."""

    class Turned:
        def __init__(self, array):
            self.array = array
            self.__cuda_array_interface__ = {"strides": array.strides}

        def __dlpack_device__(self):
            return (2, 0)

        def __dlpack__(self, **_):
            raise AssertionError("PyTorch would end the process")

        def copy(self):
            return Foreign(torch.from_numpy(self.array.copy()))

    array = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)[::-1]
    assert np.array_equal(image.unpack(Turned(array)).frames[0].color.numpy(), array)


def test_negated_tensors():
    """What PyTorch knows to be negative only when it is looked at."""
    tensor = torch.rand(3, 4, 5)
    negated = torch.complex(tensor, -tensor).conj().imag
    assert negated.is_neg()
    assert torch.equal(unpack(negated).frames[0].color, unpack(tensor).frames[0].color)


def test_dlpack_errors():
    with pytest.raises(TypeError, match=r"Foreign of torch\.int32 is no picture"):
        image.unpack(Foreign(torch.zeros(5, 7, 3, dtype=torch.int32)))
    with pytest.raises(ValueError, match=r"shape \(3, 5, 7\) is not HW or HWC .* CHW"):
        image.unpack(Foreign(torch.zeros(3, 5, 7)))
    with pytest.raises(TypeError, match=r"Foreign does not give its memory by DLPack: .*grad"):
        image.unpack(Foreign(torch.zeros(5, 7, 3, requires_grad=True)))


def test_no_copy_and_no_gradient():
    tensor = torch.rand(3, 4, 5, requires_grad=True)
    unpacked = unpack(tensor)
    assert unpacked.frames[0].color.data_ptr() == tensor.data_ptr()
    assert not unpacked.pack(unpacked.frames).requires_grad
    array = random_array((4, 5, 3), np.uint8)
    assert unpack(array).frames[0].color.data_ptr() == array.ctypes.data


@pytest.mark.parametrize(
    ("obj", "error", "text"),
    [
        ("a.png", TypeError, "read the file"),
        ([1, 2], TypeError, "list"),
        (np.zeros((2, 2), bool), TypeError, "bool"),
        (np.zeros((2, 2), np.int64), TypeError, "int64"),
        (np.ma.masked_equal(np.array([[0, 7]], np.uint8), 7), TypeError, r"masked arrays .*\.filled\(\)"),
        (np.zeros((2, 2), complex), TypeError, "complex128"),
        (torch.zeros(3, 2, 2, dtype=torch.int32), TypeError, "torch.int32"),
        (torch.zeros(3, 2, 2).to_sparse(), TypeError, "sparse"),
        (torch.zeros(3, 2, 2, device="meta"), TypeError, "meta"),
        (np.zeros((3, 20, 20), np.uint8), ValueError, r"\(3, 20, 20\).*CHW.*transpose"),
        (np.zeros((2, 20, 20, 3), np.uint8), ValueError, "one by one"),
        (np.zeros(5, np.uint8), ValueError, r"\(5,\)"),
        (np.zeros((4, 4, 5), np.uint8), ValueError, r"\(4, 4, 5\)"),
        (torch.zeros(20, 20, 3), ValueError, r"\(20, 20, 3\).*HWC.*permute"),
        (torch.zeros(2, 20, 20, 3), ValueError, r"BHWC.*permute"),
        (torch.zeros(20, 20), ValueError, r"\[None\]"),
        (np.zeros((0, 5, 3), np.uint8), ValueError, "no pixels"),
        (torch.zeros(0, 3, 5, 5), ValueError, "no pixels"),
        (Image.new("RGB", (0, 5)), ValueError, "no pixels"),
        (np.full((2, 2), np.nan), ValueError, "4 of 4 values are NaN"),
        (np.array([[0, np.inf]]), ValueError, "1 of 2 values"),
        (np.full((2, 2), 255.0), ValueError, "255 to 255.*divide by 255"),
        (torch.full((3, 2, 2), -1.0), ValueError, "-1 to -1"),
        (np.array([[-1.0, 1.0]]), ValueError, r"from -1 to 1, not in 0\.\.1: floats must lie in \[0, 1\]$"),
        (Image.new("F", (2, 2), 200), ValueError, "divide by 255"),
    ],
)
def test_errors(obj, error, text):
    with pytest.raises(error, match=text):
        unpack(obj)


def test_floats_slightly_outside_pass():
    array = np.array([[-0.2, 1.3]], np.float32)
    unpacked = unpack(array)
    assert np.array_equal(unpacked.pack(unpacked.frames), array)


def test_pack_checks_its_frames():
    unpacked = unpack(torch.rand(2, 3, 4, 4))
    one, two = unpacked.frames
    with pytest.raises(ValueError, match="1 frames"):
        unpacked.pack([one])
    with pytest.raises(ValueError, match="shape"):
        unpacked.pack([one, enlarged(two)])
    with pytest.raises(ValueError, match=r"\[H, W, 3\]"):
        unpacked.pack([one, Planes(two.color, two.color[..., :1])])
    with pytest.raises(TypeError, match="float64"):
        unpacked.pack([one, Planes(two.color.double(), None)])


def test_to_float():
    assert to_float(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == pytest.approx([0, 0.2, 1])
    assert to_float(torch.tensor([0, 65535], dtype=torch.uint16)).tolist() == [0, 1]
    assert to_float(torch.tensor([0.3, 1.2])).dtype == torch.float32


def test_importing_it_does_not_import_pillow():
    code = "import sys, liif_fast; had = 'PIL' in sys.modules; import liif_fast.image; "
    code += "assert ('PIL' in sys.modules) == had"
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]),
    st.sampled_from(["uint8", "uint16", "float32"]), st.floats(0, 1), st.integers(0, 99),
)  # fmt: skip
def test_bleed_properties(h, w, channels, dtype, share, seed):
    color = random_array((h, w, channels), dtype, seed)
    shown = np.random.default_rng(seed + 1).random((h, w, 1)) < share
    alpha = shown * random_array((h, w, 1), dtype, seed + 2)
    shown = alpha > 0
    out = bleed(torch.from_numpy(color), torch.from_numpy(alpha)).numpy()
    assert out.shape == color.shape
    assert out.dtype == color.dtype
    assert np.array_equal(out[shown[..., 0]], color[shown[..., 0]])
    if shown.any():
        seen = color[shown[..., 0]]
        slack = 1e-5 if dtype == "float32" else 0
        assert out.min() >= seen.min() - slack
        assert out.max() <= seen.max() + slack
        garbage = np.where(shown, color, random_array(color.shape, dtype, seed + 3))
        assert np.array_equal(bleed(torch.from_numpy(garbage), torch.from_numpy(alpha)).numpy(), out)


def test_bleed_extends_edges_smoothly():
    ramp = torch.linspace(0, 1, 64)[None, :, None].expand(64, 64, 3).clone()
    alpha = torch.zeros(64, 64, 1)
    alpha[16:48] = 1
    out = bleed(ramp * alpha, alpha)
    assert out.diff(dim=0).abs().max() < 0.05  # leaves the edge with the colour of the edge
    assert out.diff(dim=1).abs().max() < 0.03


def test_bleed_in_bands_is_the_same(monkeypatch):
    color, alpha = torch.rand(101, 37, 3), (torch.rand(101, 37, 1) < 0.1).float()
    whole = bleed(color, alpha)
    monkeypatch.setattr(image, "_BLEED_BAND", 1)
    assert torch.allclose(bleed(color, alpha), whole, atol=1e-6)


def test_bleed_returns_the_same_where_there_is_nothing_to_do():
    color = torch.rand(3, 4, 3)
    assert bleed(color, torch.ones(3, 4, 1)) is color
    assert bleed(color, torch.zeros(3, 4, 1)) is color
