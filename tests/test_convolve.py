"""The convolution and the encoder made of it: every instruction set, PyTorch's encoder, tiles, threads."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common import BF16, CPU, FP32, FP64, random_weights
from liif_fast import Upscaler, native_convolution, native_encoder
from liif_fast.architecture import Architecture
from liif_fast.backends import cpu
from liif_fast.encoder import Encoder, torch_threads
from liif_fast.image import WHITE
from liif_fast.native_convolution import step
from liif_fast.native_encoder import NativeEncoder
from liif_fast.ops import Decoder
from liif_fast.resample import Resampler
from liif_fast.training import convolution
from liif_fast.training.network import make

# (inputs, outputs, kernel, ReLU, addition, skip): every remainder of outputs in vectors, both kernels, all fused steps.
SHAPES = [
    (4, 16, 3, False, False, False),
    (16, 16, 3, True, False, False),
    (32, 32, 3, False, True, False),
    (64, 64, 3, True, True, False),
    (16, 48, 3, False, False, True),
    (16, 64, 3, False, False, False),
    (32, 48, 3, False, False, True),
    (64, 16, 3, True, True, True),
    (16, 112, 1, False, False, False),
    (48, 256, 1, True, True, True),
]
SIZES = [(1, 1), (2, 5), (5, 31), (7, 13), (9, 29), (6, 70)]


def random(*shape: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Values that ``dtype`` holds exactly, as float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).double()


def check(
    shape: tuple[int, int, int, bool, bool, bool], size: tuple[int, int], dtype: torch.dtype, threads: int
) -> None:
    into, out, kernel, relu, adds, skips = shape
    weight = random(out, into, kernel, kernel, seed=0, dtype=dtype) / (kernel * into**0.5)
    weight, bias = weight.to(dtype).double(), random(out, seed=1, dtype=FP32)
    # A border that counts is no zero.
    image = random(size[0] + 2, size[1] + 2, into, seed=2, dtype=dtype)
    skip = random(size[0] + 2, size[1] + 2, native_convolution.SKIP, seed=3, dtype=dtype) if skips else None
    mix = random(out, native_convolution.SKIP, seed=4, dtype=dtype)
    inside = image if kernel == 3 else image[1:-1, 1:-1]
    exact = F.conv2d(inside.permute(2, 0, 1)[None], weight, bias)[0].permute(1, 2, 0)
    if skip is not None:
        exact = exact + skip[1:-1, 1:-1] @ mix.T

    bordered = torch.full((size[0] + 2, size[1] + 2, out), 7.0, dtype=dtype)
    given = bordered[1:-1, 1:-1]
    if adds:  # onto itself
        given.copy_(random(*exact.shape, seed=5, dtype=dtype))
        exact = exact + given.double()
    exact = exact.relu() if relu else exact
    packed = native_convolution.pack(weight, bias, dtype, mix if skips else None)
    assert (packed.winograd is not None) == (cpu.isa(dtype) != "amx" and kernel == 3 and into >= 16)
    skip = None if skip is None else skip.to(dtype)
    native_convolution.convolve([step(image.to(dtype), packed, given, relu, given if adds else None, skip)], threads)
    error = (given.double() - exact).abs()
    rounds = dtype == BF16 and cpu.isa(dtype) in cpu.BF16_ISAS
    if packed.winograd is not None and rounds:  # its 36 points too
        assert packed.winograd.dtype == BF16
        assert error.square().mean().sqrt() <= 2.0**-6
        assert (error <= 2.0**-3 * (1 + exact.abs())).all()
    else:
        unit = 2.0**-8 if dtype == BF16 else 2.0**-15 if packed.winograd is not None else 2.0**-17
        assert (error <= unit * (1 + exact.abs())).all()
    border = torch.ones(bordered.shape[:2], dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert (bordered[border] == 7).all(), "wrote outside its output"


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_against_float64(isa: str, shape: tuple[int, int, int, bool, bool, bool], dtype: torch.dtype) -> None:
    for threads, size in enumerate(SIZES, 1):
        check(shape, size, dtype, threads)


# (pictures, rows, columns, inputs, outputs): tiles cut short below and on the right, one short block and several.
BATCHES = [(1, 1, 1, 16, 16), (3, 5, 6, 16, 48), (2, 9, 29, 16, 64), (2, 8, 4, 64, 32), (5, 12, 13, 32, 112)]


def check_pictures(batch: tuple[int, int, int, int, int], threads: int, dtype: torch.dtype) -> None:
    """Forwards and both gradients of what training computes."""
    count, rows, columns, into, out = batch
    pictures, given = (random(count, n, rows, columns, seed=n, dtype=dtype) for n in (into, out))
    weight, bias = random(out, into, 3, 3, seed=0, dtype=FP32) / 10, random(out, seed=1, dtype=FP32)
    wanted = [t.clone().requires_grad_() for t in (pictures, weight, bias)]
    exact = F.conv2d(*wanted, padding=1)
    exact.backward(given)
    ours = [pictures.to(dtype), weight.float(), bias.float()]
    ours[:2] = [t.contiguous(memory_format=torch.channels_last) for t in ours[:2]]
    ours = [t.requires_grad_() for t in ours]
    with torch_threads(threads), torch.autocast("cpu", BF16, enabled=dtype == BF16):
        assert convolution.is_ours(*ours[:2])
        result = convolution.convolve(*ours)
        result.backward(given.to(dtype))
    assert result.dtype == ours[0].grad.dtype == dtype
    for mine, theirs in ((result, exact), *((a.grad, b.grad) for a, b in zip(ours, wanted, strict=True))):
        assert mine.shape == theirs.shape
        size, error = theirs.square().mean().sqrt(), (mine.double() - theirs).abs()
        if mine.dtype == BF16:  # its 36 points too
            assert error.square().mean().sqrt() <= 2.0**-6 * size
            assert (error <= 2.0**-3 * (size + theirs.abs())).all()
        else:
            assert (error <= 2.0**-15 * (size + theirs.abs())).all()


@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_pictures_and_gradients(isa: str, batch: tuple[int, int, int, int, int]) -> None:
    for threads in (1, 3):
        check_pictures(batch, threads, FP32)
    if cpu.isa(BF16) in convolution.BF16_ISAS:
        check_pictures(batch, 1, BF16)


def test_gradients_of_bf16_are_summed_in_float32(isa: str) -> None:
    """By every instruction set, though training takes PyTorch's where there are no products of bf16."""
    pictures, given = (random(2, 9, 29, n, seed=n, dtype=BF16) for n in (16, 64))
    native = native_convolution.unpack_winograd(
        native_convolution.convolve_gradient(pictures.to(BF16), given.to(BF16), 2)
    )
    planes = [t.permute(0, 3, 1, 2) for t in (pictures, given)]
    exact = torch.nn.grad.conv2d_weight(planes[0], native.shape, planes[1], padding=1)
    assert ((native - exact).abs() <= 2.0**-15 * (exact.square().mean().sqrt() + exact.abs())).all()


def test_autocast_has_no_say_in_packed_weights() -> None:
    weight = torch.randn(32, 16, 3, 3)
    for dtype in (FP32, BF16):
        packed = native_convolution.pack_winograd(weight, dtype)
        with torch.autocast("cpu", BF16):
            assert torch.equal(packed, native_convolution.pack_winograd(weight, dtype))


def test_other_dtypes_are_left_to_pytorch() -> None:
    """Also what it refuses."""
    weight, bias = torch.rand(16, 16, 3, 3), torch.rand(16)
    with pytest.raises(RuntimeError, match="type"):
        convolution.convolve(torch.rand(1, 16, 4, 4).to(BF16), weight, bias)
    with torch.autocast("cpu", BF16):
        assert not convolution.is_ours(torch.rand(1, 16, 4, 4, dtype=FP64), weight)


def test_autocast_takes_float32(isa: str) -> None:
    if cpu.isa(BF16) not in convolution.BF16_ISAS:
        pytest.skip("PyTorch's")
    image, weight, bias = torch.rand(1, 16, 8, 8, requires_grad=True), torch.rand(16, 16, 3, 3), torch.rand(16)
    with torch_threads(1), torch.autocast("cpu", BF16):
        assert convolution.is_ours(image, weight)
        result = convolution.convolve(image, weight, bias)
    assert result.dtype == BF16
    result.sum().backward()
    assert image.grad is not None
    assert image.grad.dtype == FP32
    exact = F.conv_transpose2d(torch.ones(1, 16, 8, 8), weight, padding=1)
    assert ((image.grad - exact).abs() <= 2.0**-5 * exact).all()


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_gradients_are_the_same_bits_each_time(dtype: torch.dtype) -> None:
    pictures, given = torch.rand(3, 9, 10, 32).to(dtype), torch.rand(3, 9, 10, 16).to(dtype)
    first = native_convolution.convolve_gradient(pictures, given, 4)
    assert all(torch.equal(first, native_convolution.convolve_gradient(pictures, given, 4)) for _ in range(5))


def test_second_gradients_are_refused() -> None:
    """They would be wrong without a word: native code leaves no graph."""
    x = torch.rand(1, 16, 4, 4, requires_grad=True)
    y = convolution.Convolution(16, 16)(x)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("bad", ["dtype", "products", "swapped", "inputs", "many", "outputs", "bias", "strides"])
def test_native_code_for_pictures_is_guarded(bad: str) -> None:
    channels = {"inputs": 32, "many": 512}.get(bad, 16)
    pictures = torch.zeros(2, 3, 4, channels, dtype=BF16 if bad == "dtype" else FP32)
    pictures = pictures.transpose(1, 2) if bad == "strides" else pictures
    out = torch.zeros(*pictures.shape[:3], 16 if bad == "outputs" else 32)
    products = BF16 if bad == "products" else FP32
    kernels = torch.zeros(32, 512 if bad == "many" else 16, 3, 3)
    weight = native_convolution.pack_winograd(kernels.transpose(0, 1) if bad == "swapped" else kernels, products)
    with pytest.raises(ValueError, match=r"fit each other|must be contiguous"):
        native_convolution.convolve_pictures(pictures, weight, torch.zeros(31 if bad == "bias" else 32), 1, out)
    if bad in ("dtype", "strides"):
        with pytest.raises(ValueError, match="must be contiguous"):
            native_convolution.convolve_gradient(pictures, out, 1)
    with pytest.raises(ValueError, match="fit each other"):
        native_convolution.convolve_gradient(torch.zeros(2, 3, 4, 16), torch.zeros(2, 3, 5, 16), 1)


def test_is_what_training_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """And PyTorch where ours does not serve: few channels, autocast without an instruction, double precision."""
    calls = []
    for name in ("convolve_pictures", "convolve_gradient"):
        mine = getattr(native_convolution, name)
        monkeypatch.setattr(native_convolution, name, lambda *a, f=mine, n=name: calls.append(n) or f(*a))
    network = make(Architecture(1, 32, (16,), decoder="resample"))
    image = torch.rand(2, 3, 8, 8)
    network.encoder(image).sum().backward()
    assert sorted(calls) == ["convolve_gradient"] * 3 + ["convolve_pictures"] * 6
    for openmp, threads, ours in ((False, 3, False), (False, 1, True), (True, 3, True)):
        calls.clear()
        monkeypatch.setattr(cpu, "on_pytorchs_threads", lambda openmp=openmp: openmp)
        with torch_threads(threads), torch.autocast("cpu", torch.bfloat16):
            network.encoder(image).sum().backward()
        assert len(calls) == (9 if ours and cpu.isa(BF16) in convolution.BF16_ISAS else 0)
    calls.clear()
    with torch.autocast("cpu", torch.float16):
        network.encoder(image)
    network.double().encoder(image.double())
    make(Architecture(1, 24, (16,), decoder="resample")).encoder(image)
    network.float().to("meta").encoder(image.to("meta"))
    assert not calls


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_nothing_to_convolve(isa: str, dtype: torch.dtype) -> None:
    packed = native_convolution.pack(torch.zeros(16, 4, 3, 3), torch.zeros(16), dtype)
    nothing = step(torch.zeros(5, 2, 4, dtype=dtype), packed, torch.zeros(3, 0, 16, dtype=dtype))
    native_convolution.convolve([nothing], 2)
    native_convolution.convolve([], 2)


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
@pytest.mark.parametrize("kernel", [1, 3])
def test_what_is_not_a_number_stays(isa: str, kernel: int, dtype: torch.dtype) -> None:
    """Through a ReLU as well: or LIIF_FAST_CHECK would not see it."""
    torch.manual_seed(0)
    packed = native_convolution.pack(torch.randn(32, 16, kernel, kernel), torch.randn(32), dtype)
    image = torch.zeros(21, 39, 16, dtype=dtype)
    image[1:-1, 1:-1] = torch.randn(19, 37, 16)
    image[10, 20, 3] = float("nan")
    out = torch.zeros(19, 37, 32, dtype=dtype)
    native_convolution.convolve([step(image, packed, out, relu=True)], 2)
    assert out[9, 19].isnan().all()
    assert out[0, 0].isfinite().all()


@pytest.mark.parametrize("bad", ["dtype", "inputs", "outputs", "size", "add", "skip", "strides"])
def test_native_code_is_guarded(bad: str) -> None:
    packed = native_convolution.pack(torch.zeros(32, 16, 3, 3), torch.zeros(32), BF16 if bad == "dtype" else FP32)
    image = torch.zeros(5, 6, 15 if bad == "inputs" else 16)
    out = torch.zeros(3, 4 + (bad == "size"), 48 if bad == "outputs" else 32)
    out = torch.zeros(3, 32, 4).transpose(1, 2) if bad == "strides" else out
    add = torch.zeros(3, 4, 16) if bad == "add" else None
    skip = torch.zeros(5, 6, 4) if bad == "skip" else None
    with pytest.raises(ValueError, match="16 to 32 do not fit each other"):
        native_convolution.convolve([step(image, packed, out, add=add, skip=skip)], 1)


def pair(architecture: Architecture, dtype: torch.dtype, threads: int = 2) -> tuple[Encoder, NativeEncoder]:
    weights = random_weights(architecture)
    head = (Decoder if architecture.decoder == "liif" else Resampler)(weights, CPU, dtype).head
    assert native_encoder.unavailable(architecture, head, CPU, dtype) is None
    return Encoder(weights, head, CPU, dtype, threads), NativeEncoder(weights, head, CPU, dtype, threads)


@pytest.mark.parametrize("to", [FP32, BF16], ids=str)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, FP32], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_normalises_as_pytorch_does(dtype: torch.dtype, channels: int, to: torch.dtype) -> None:
    """The same bits, of views too; the border stays as it is."""
    architecture = Architecture(1, 16, (16,), mean=(0.5, 0.4, 0.3), std=(0.5, 0.6, 0.7))
    plain = Encoder(random_weights(architecture), plain_head(architecture), CPU, to)
    white = WHITE.get(dtype, 1.0)
    samples = torch.rand(31, 40, 4, generator=torch.Generator().manual_seed(3)) * white
    samples = samples.to(torch.int32 if dtype == torch.uint16 else dtype).to(dtype)
    for image in (samples[..., :channels], samples.transpose(0, 1)[3:, 5:, 1 : channels + 1]):
        out = torch.full((image.shape[0] + 2, image.shape[1] + 2, native_convolution.SKIP), 7.0, dtype=to)
        inside = native_encoder.inside(out)
        native_convolution.normalise(image, white, list(architecture.mean), list(architecture.std), 3, inside)
        assert torch.equal(inside[..., :3], plain._normalise(image).expand(-1, -1, 3))
        assert not inside[..., 3].any()
        inside[:] = 7
        assert (out == 7).all()


@pytest.mark.parametrize("bad", ["dtype", "channels", "size", "out", "strides", "device"])
def test_native_code_that_normalises_is_guarded(bad: str) -> None:
    image = torch.zeros(3, 4, 2 if bad == "channels" else 3, dtype=torch.float64 if bad == "dtype" else FP32)
    out = torch.zeros(3, 5 if bad == "size" else 4, 4, dtype=torch.float16 if bad == "out" else FP32)
    out = torch.zeros(4, 3, 4).transpose(0, 1) if bad == "strides" else out
    image = image.to("meta") if bad == "device" else image
    with pytest.raises(ValueError, match="does not go into"):
        native_convolution.normalise(image, 1.0, [0.5] * 3, [0.5] * 3, 1, out)


@pytest.mark.parametrize("features", [16, 272])
def test_the_image_stays_exact_where_the_network_adds_nothing(features: int) -> None:
    """8 bits, in bf16 too, whichever way the last convolution goes: that of more than 256 features is direct."""
    weights = random_weights(Architecture(1, features, (16,), decoder="resample"))
    weights = replace(weights, tensors={n: t * (not n.startswith("upsample.")) for n, t in weights.tensors.items()})
    head = Resampler(weights, CPU, BF16).head
    image = torch.arange(256, dtype=torch.uint8).view(16, 16, 1)
    z = NativeEncoder(weights, head, CPU, BF16, 1)(image).float() * 127.5 + 127.5
    # z itself is bf16, in steps of half a grey level where it is largest.
    assert (z - image).abs().max() <= 0.26


@pytest.mark.parametrize("decoder", ["resample", "liif"])
def test_no_large_step_is_one_of_pytorch(decoder: str) -> None:
    """Its threads would look for more work for a while afterwards, where ours have some."""
    up = Upscaler(random_weights(Architecture(1, 16, (16,), decoder=decoder)), threads=2)
    picture = np.zeros((300, 400, 3), np.uint8)
    up(picture, scale=2)
    with torch.profiler.profile(record_shapes=True) as profile:
        up(picture, scale=2)
    events = profile.key_averages(group_by_input_shape=True)
    large = {e.key for e in events if any(math.prod(shape) > 1 << 15 for shape in e.input_shapes if shape)}
    assert "aten::index" not in {e.key for e in events}  # parallel from a few thousand elements on
    decode = {"resample": "liif_fast::resample", "liif": "liif_fast::decode"}[decoder]
    assert decode in large
    # To the same type and place.
    views = ["alias", "as_strided", "detach", "slice", "resolve_neg", "resolve_conj", "lift_fresh", "to", "view"]
    assert large <= {decode, "detach", *(f"aten::{view}" for view in views)}


ARCHITECTURES = {
    "liif": Architecture(2, 32, (48, 16)),
    "liif without unfolding": Architecture(1, 16, (32,), feat_unfold=False),
    "resample": Architecture(2, 32, (16,), decoder="resample"),
    "rectified": Architecture(2, 32, (16,), decoder="resample", relu_after_add=True),
}


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_is_the_encoder(name: str, dtype: torch.dtype) -> None:
    """Its error against float64 is of the size of that of PyTorch's encoder; F(4x4, 3x3) rounds a little more."""
    architecture = ARCHITECTURES[name]
    plain, native = pair(architecture, dtype)
    exact = Encoder(random_weights(architecture), plain_head(architecture), CPU, FP64)
    for channels in (1, 3):
        image = torch.rand(11, 17, channels, generator=torch.Generator().manual_seed(1))
        wanted, ours, theirs = exact(image.double()), native(image), plain(image)
        assert ours.dtype == dtype
        assert ours.is_contiguous()
        allowed = (8 if dtype == FP32 else 2 if cpu.isa(dtype) == "amx" else 4) * (theirs.double() - wanted).abs().max()
        assert (ours.double() - wanted).abs().max() <= allowed


def plain_head(architecture: Architecture):
    weights = random_weights(architecture)
    head = (Decoder if architecture.decoder == "liif" else Resampler)(weights, CPU, FP32).head
    return type(head)(head.weight.double(), head.bias.double(), head.skip)


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_same_bits_for_any_tile_threads_and_workspace(dtype: torch.dtype) -> None:
    _, one = pair(ARCHITECTURES["resample"], dtype, threads=1)
    _, four = pair(ARCHITECTURES["resample"], dtype, threads=4)
    height, width, halo = 120, 93, one.halo
    image = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(2))
    whole = one(image)
    for top, bottom, left, right in ((0, 64, 4, 93), (40, 120, 0, 60), (32, 112, 24, 88)):
        part = four(image[top:bottom, left:right])  # another size each time: no workspace fits
        y = slice(top + halo if top else 0, bottom - halo if bottom < height else height)
        x = slice(left + halo if left else 0, right - halo if right < width else width)
        assert y.stop > y.start
        assert x.stop > x.start
        assert torch.equal(part[y.start - top : y.stop - top, x.start - left : x.stop - left], whole[y, x])
    again = four(image)
    assert torch.equal(four(image), again)  # in the workspace of the call before
    assert torch.equal(again, whole)


def test_is_what_an_upscaler_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    convolve = native_convolution.convolve
    monkeypatch.setattr(native_convolution, "convolve", lambda *a, **k: calls.append(a) or convolve(*a, **k))
    up = Upscaler(random_weights(Architecture(1, 16, (16,))), precision="fp32")
    assert type(up.encoder) is NativeEncoder
    up(np.zeros((5, 6, 3), np.uint8), scale=2)
    assert [len(steps) for steps, _ in calls] == [1 + 2 + 1 + 1]
    odd = Upscaler(random_weights(Architecture(1, 10, (16,))), precision="fp32")
    assert type(odd.encoder) is Encoder
    odd(np.zeros((5, 6, 3), np.uint8), scale=2)
    assert len(calls) == 1
    reason = native_encoder.unavailable(Architecture(1, 10, (16,)), odd.decoder.head, CPU, FP32)
    assert reason == "it takes multiples of 16 features, not 10"
