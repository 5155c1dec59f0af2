"""Files -> `Weights`: reads official LIIF `.pth`, mmagic `.pth` and our own `.safetensors`; writes the last.

A checkpoint is data from anywhere: nothing in it is executed, and whatever is wrong with it becomes one
`CheckpointError` line that names the file. Nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import chain, product
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as serialize

from .architecture import FLAGS, Architecture, CheckpointError, require, show
from .output import whole_file
from .quantization import FORMATS, Quantized, digest
from .weights import BUNDLED, DEFAULT

MODELS_VARIABLE = "LIIF_FAST_MODELS"
FORMAT, FORMAT_VERSIONS = "liif_fast", ("1", "2")  # the second where relu_after_add changes what a network computes

_SUFFIXES = (".safetensors", ".pth", ".pt")
# Defaults of the reference code (models/edsr.py): n_resblocks, n_feats, res_scale.
_ENCODERS = {"edsr-baseline": (16, 64, 1.0), "edsr": (32, 256, 0.1)}
_PARTS = ("encoder.", "imnet.", "upsample.", "taps.")
_UNUSED = ("encoder.sub_mean.", "encoder.add_mean.")
_MMAGIC_NORM = {"mean": (0.4488, 0.4371, 0.4040), "std": (1.0, 1.0, 1.0)}
_LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
# Of each format the key of the metadata that says which layers were measured.
_OF = {form.name: f"{form.name}.of" for form in FORMATS.values()}
_LARGEST = 1e12  # of what was measured: products of 8 bits and these are far from what float32 can hold
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True, eq=False)
class Weights:
    """A network: its architecture and tensors (exactly `architecture.shapes`; fp32, contiguous, CPU, finite).

    `metadata` is what else the file said (description, licence), which `save` keeps, as it does `quantized`, what
    `liif-fast calibrate` measured: hidden layers in 8 bits by the name of their format ("fp8", "int8"), which are not
    part of the fingerprint. Raises `CheckpointError` where a tensor is missing, unknown, of the wrong shape or type, or
    holds NaN or infinity.
    """

    architecture: Architecture
    tensors: dict[str, torch.Tensor]
    name: str = "unnamed"
    metadata: dict[str, str] = field(default_factory=dict)
    quantized: Mapping[str, Quantized] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = self.architecture.shapes
        for key in shapes:
            require(key in self.tensors, f"not this LIIF-EDSR network: no tensor {key}{_having(self.tensors)}")
        for key in self.tensors:
            require(key in shapes, f"unknown tensor {show(key)}: this architecture has none of that name")
        for key, shape in shapes.items():
            tensor = self.tensors[key]
            require(tensor.shape == shape, f"{key} is {tuple(tensor.shape)}, the architecture needs {shape}")
            plain = tensor.dtype == torch.float32 and tensor.device.type == "cpu" and tensor.is_contiguous()
            require(plain, f"{key} must be a contiguous float32 tensor on the CPU")
            require(bool(torch.isfinite(tensor).all()), f"{key} holds NaN or infinite values: damaged or diverged")
        for name, found in self.quantized.items():
            _check_quantized(name, found, self.architecture)
            same = found.of == digest(chain(*self.imnet[1:-1]))
            require(same, f"its {name} layers were measured of others than it has: `liif-fast calibrate` does it again")

    @property
    def imnet(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Weight and bias of each linear layer of LIIF's decoder."""
        count = len(self.architecture.hidden_list) + 1
        names = [f"imnet.layers.{2 * i}" for i in range(count)]
        return [(self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]) for name in names]

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of a SHA-256 over architecture and tensors; the same for the same network on any machine."""
        digest = hashlib.sha256(repr(sorted(asdict(self.architecture).items())).encode())
        for key in self.architecture.shapes:
            digest.update(key.encode())
            digest.update(self.tensors[key].detach().numpy().tobytes())
        return digest.hexdigest()[:16]


def available() -> dict[str, Path]:
    """Names that `load` knows, each with its file: the bundled models, then the folders of `LIIF_FAST_MODELS`."""
    found: dict[str, Path] = {}
    folders = [Path(folder) for folder in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if folder]
    for folder, suffix in [(BUNDLED, ".safetensors"), *product(folders, _SUFFIXES)]:
        for path in folder.glob(f"*{suffix}"):
            if path.is_file():
                found.setdefault(path.stem, path)
    return found


def resolve(path_or_name: str | os.PathLike[str]) -> Path:
    """The file behind a path or a model name.

    Whatever has a path separator or a known suffix is a path, and so is the name of an existing file; the rest is
    looked up in `available()`.

    Raises:
        FileNotFoundError: there is no such file or name; one line that lists the known names.
    """
    text = os.fspath(path_or_name)
    path = Path(text)
    is_path = path.suffix.lower() in _SUFFIXES or os.sep in text or bool(os.altsep and os.altsep in text)
    if path.is_file() or (is_path and path.exists()):
        return path
    names = available()
    if not is_path and text in names:
        return names[text]
    problem = f"no such file: {text!r}" if is_path else f"no model named {text!r} in {MODELS_VARIABLE} or the package"
    raise FileNotFoundError(f"{problem} (known models: {', '.join(sorted(names)) or 'none'})")


def load(path_or_name: str | os.PathLike[str] = DEFAULT) -> Weights:
    """Reads a checkpoint, found as `resolve` does and recognised by its content.

    Official `.pth` files (https://github.com/yinboc/liif) with any flags, plain state dicts whose architecture follows
    from their shapes, mmagic's LIIF-EDSR `.pth` (its own normalisation comes along), and our `.safetensors`. The
    `res_scale` of a residual block is folded into its second convolution, so the network has none.

    Raises:
        FileNotFoundError: no such file or name.
        CheckpointError: the file is damaged, foreign or not supported; one line, with the file's name.
    """
    path = resolve(path_or_name)
    try:
        require(path.is_file(), "not a regular file")
        size = path.stat().st_size
        content, metadata = _read(path, size)
        architecture, res_scale, state = _understand(content, metadata)
        tensors = _convert(state, res_scale, size)
        ours = {*_to_metadata(architecture), *_OF.values()}
        rest = {key: value for key, value in metadata.items() if key not in ours}
        return Weights(architecture, tensors, path.stem, rest, _quantized(content, metadata))
    except CheckpointError as error:
        name = str(path) if str(path).isprintable() else repr(str(path))
        raise CheckpointError(f"{name}: {error}") from error.__cause__


def save(
    path: str | os.PathLike[str],
    weights: Weights,
    dtype: torch.dtype | None = None,
    force: bool = False,
) -> None:
    """Writes our `.safetensors`, whole or not at all, as `whole_file` does.

    `dtype`, of the stored tensors, is `torch.float16`, `torch.bfloat16` or `torch.float32`, or None: the smallest that
    keeps every bit.

    Raises:
        TypeError: metadata that is not strings.
        ValueError: another dtype, or metadata under a key that belongs to the format.
        FileExistsError: of an existing file, without `force`.
        CheckpointError: a value does not fit `dtype`, or it would change layers that others in 8 bits stand for.
    """
    if dtype is None:
        dtype = next(d for d in _FLOATS[:3] if all(torch.equal(t.to(d).float(), t) for t in weights.tensors.values()))
    if dtype not in _FLOATS[:3]:
        raise ValueError(f"dtype must be float16, bfloat16 or float32, not {dtype}")
    ours = _to_metadata(weights.architecture)
    ours |= {_OF[name]: found.of for name, found in weights.quantized.items()}
    if clash := sorted({*ours, *_OF.values()} & weights.metadata.keys()):
        raise ValueError(f"metadata key {clash[0]!r} is reserved for the architecture")
    tensors = {key: tensor.detach().to(dtype) for key, tensor in weights.tensors.items()}
    for key, tensor in tensors.items():
        require(bool(torch.isfinite(tensor).all()), f"{key} does not fit {dtype}: save it as float32")
    if weights.quantized:
        replace(weights, tensors={key: tensor.float() for key, tensor in tensors.items()})  # raises where they differ
    for name, found in weights.quantized.items():
        tensors[f"{name}.scale"] = found.scale
        tensors |= {f"{name}.{i}.weight": tensor for i, tensor in enumerate(found.weight)}
        tensors |= {f"{name}.{i}.steps": tensor for i, tensor in enumerate(found.steps)}
    data = serialize(tensors, {**weights.metadata, **ours})
    with whole_file(path, force) as file:
        file.write(data)


def _read(path: Path, size: int) -> tuple[object, dict[str, str]]:
    """What a file holds and its metadata, read by the library that its first bytes call for."""
    with path.open("rb") as file:
        head = file.read(len(_LEGACY_MAGIC))
    is_zip, is_safetensors = head.startswith(b"PK\x03\x04"), head[8:9] == b"{"
    known = is_zip or is_safetensors or head == _LEGACY_MAGIC
    require(known, "not a checkpoint: neither a PyTorch nor a safetensors file")
    try:
        if is_safetensors:
            with safe_open(path, framework="pt", device="cpu") as opened:
                names = opened.keys()  # a list; the file itself cannot be iterated
                return {key: opened.get_tensor(key) for key in names}, dict(opened.metadata() or {})
        if is_zip:
            _check_zip(path, size)
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")  # the error line says it all
            if path.suffix == ".safetensors":  # by path, torch would look no further than this suffix
                return torch.load(file, map_location="cpu", weights_only=True), {}
            # Mapped, a tensor that claims more bytes than its record has is an error in every torch version.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip), {}
    except CheckpointError:
        raise
    except Exception as error:  # damage can make the libraries raise anything at all
        asked = re.search(r"(?:GLOBAL|class) ([\w.]+)", str(error))
        if asked is None or is_safetensors:
            raise CheckpointError("a damaged or truncated file") from error
        problem = f"refused, it asks for the Python object {show(asked[1])}: save tensors and plain values only"
        raise CheckpointError(problem) from error


def _check_zip(path: Path, size: int) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = {entry.filename.rpartition("/")[2] for entry in entries}
    usual = "data.pkl" in names and "constants.pkl" not in names  # the latter is TorchScript's
    require(usual, "a zip archive, but not a checkpoint: save a state dict")
    # torch.save never compresses; with nothing to inflate, no entry can be larger than the file.
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    require(stored and sum(entry.file_size for entry in entries) <= size, "not written by torch.save")


def _understand(content: object, metadata: dict[str, str]) -> tuple[Architecture, float, dict[Any, Any]]:
    """Architecture, res_scale and state dict of whatever was in the file."""
    content = _dict(content, "the content")
    version = metadata.get("version") if metadata.get("format") == FORMAT else FORMAT_VERSIONS[0]
    known = " or ".join(FORMAT_VERSIONS)
    require(version in FORMAT_VERSIONS, f"format version {show(version)} is not {known}: update liif_fast")
    if "n_resblocks" in metadata:
        return _from_metadata(metadata), 1.0, content
    model = content.get("model")
    if isinstance(model, dict) and "sd" in model:
        return *_from_args(model), _dict(model["sd"], "sd")
    content = next((inner for inner in (model, content.get("state_dict")) if isinstance(inner, dict)), content)
    state, norm = _official_names({key: value for key, value in content.items() if isinstance(key, str)})
    return _from_shapes(state, norm), 1.0, state


def _from_args(model: dict[Any, Any]) -> tuple[Architecture, float]:
    """Architecture and res_scale of an official checkpoint's `{"name", "args", "sd"}`."""
    require(model.get("name") == "liif", f"network {show(model.get('name'))} is not supported, liif is")
    args = _dict(model.get("args"), "args")
    encoder, imnet = _dict(args.get("encoder_spec"), "encoder_spec"), _dict(args.get("imnet_spec"), "imnet_spec")
    name = encoder.get("name")
    if not isinstance(name, str) or name not in _ENCODERS:
        raise CheckpointError(f"encoder {show(name)} is not supported, {' and '.join(_ENCODERS)} are")
    defaults = dict(zip(("n_resblocks", "n_feats", "res_scale"), _ENCODERS[name], strict=True))
    given = {**defaults, **_dict(encoder.get("args", {}), "encoder args")}
    require(given.get("no_upsampling") is True, "an encoder that upsamples (without no_upsampling) is not supported")
    scale = given["res_scale"]
    require(type(scale) in (int, float) and abs(scale) <= 1e6, f"res_scale is {show(scale)}, not a number")
    require(imnet.get("name") == "mlp", f"imnet {show(imnet.get('name'))} is not supported, mlp is")
    hidden = _dict(imnet.get("args"), "imnet args").get("hidden_list")
    hidden = tuple(hidden) if isinstance(hidden, list | tuple) else ()
    flags = {key: args.get(key, True) for key in FLAGS}
    return Architecture(given["n_resblocks"], given["n_feats"], hidden, **flags), float(scale)


def _from_metadata(metadata: dict[str, str]) -> Architecture:
    """Each value is JSON, lists without their brackets; flags and normalisation may be absent."""
    values: dict[str, Any] = {"n_feats": None, "hidden_list": None}
    for key in (key for key in Architecture.__dataclass_fields__ if key in metadata):
        text, lists = metadata[key], key in ("hidden_list", "mean", "std")
        try:
            items = json.loads(f"[{text[:1000]}]", parse_int=float if key in ("mean", "std") else int)
        except (ValueError, RecursionError):
            raise CheckpointError(f"metadata {key} is {show(text)}, which cannot be read") from None
        values[key] = tuple(items) if lists else items[0] if len(items) == 1 else None
    return Architecture(**values)


def _to_metadata(architecture: Architecture) -> dict[str, str]:
    values = {key: json.dumps(value, separators=(",", ":")).strip("[]") for key, value in asdict(architecture).items()}
    return {"format": FORMAT, "version": FORMAT_VERSIONS[architecture.relu_after_add], **values}


def _from_shapes(state: dict[str, Any], norm: dict[str, Any]) -> Architecture:
    """Everything that shapes can tell; local_ensemble and res_scale are not among it."""

    def shape(key: str) -> tuple[int, ...]:
        tensor = state.get(key)
        if not isinstance(tensor, torch.Tensor) or tensor.dim() == 0:
            raise CheckpointError(f"not a LIIF-EDSR network: no tensor {key}{_having(state)}")
        return tuple(tensor.shape)

    n_feats, imnet_in = shape("encoder.head.0.weight")[0], shape("imnet.layers.0.weight")[-1]
    n_resblocks, layers = _count(r"encoder\.body\.\d+\.body\.0", state), _count(r"imnet\.layers\.\d+", state)
    hidden = tuple(shape(f"imnet.layers.{2 * i}.weight")[0] for i in range(layers - 1))
    known = bool(norm) or (n_resblocks, n_feats) != _ENCODERS["edsr"][:2]
    require(known, "without its args the res_scale of this large EDSR is unknown: use the whole checkpoint")
    for unfold, cell in product((True, False), repeat=2):
        architecture = Architecture(n_resblocks, n_feats, hidden, True, unfold, cell, **norm)
        if architecture.imnet_in == imnet_in:
            return architecture
    raise CheckpointError(f"imnet takes {imnet_in} inputs, which no LIIF over {n_feats} features does")


def _official_names(state: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """mmagic's names -> official ones, and its normalisation; an official state dict comes back as it is."""
    prefix = next((p for p in ("generator.", "generator_ema.") if any(key.startswith(p) for key in state)), "")
    state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if "conv_first.weight" not in state:
        return state, {}
    last = _count(r"body\.\d+\.conv1", state)
    rules = {
        r"^conv_first\.": "encoder.head.0.",
        r"^conv_after_body\.": f"encoder.body.{last}.",
        r"^body\.(\d+)\.conv1\.": r"encoder.body.\1.body.0.",
        r"^body\.(\d+)\.conv2\.": r"encoder.body.\1.body.2.",
        r"^body\.": "encoder.body.",  # what is left is unknown, and is reported as such
    }
    for pattern, name in rules.items():
        state = {re.sub(pattern, name, key): value for key, value in state.items()}
    return state, _MMAGIC_NORM


def _convert(state: dict[Any, Any], res_scale: float, size: int) -> dict[str, torch.Tensor]:
    """The network's tensors as fp32 copies of their own, `res_scale` folded in; `size` is the file's."""
    names = [key for key in state if isinstance(key, str) and key.startswith(_PARTS)]
    kept = {key: state[key] for key in names if not key.startswith(_UNUSED)}
    for key, value in kept.items():
        plain = type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout == torch.strided
        require(plain and not value.is_meta, f"{show(key)} is {show(value)}, not a plain tensor")
        require(value.dtype in _FLOATS, f"{show(key)} is {value.dtype}, 16 to 64 bit floats are supported")
    # Strides of zero make a small file look huge: nothing is copied before the bytes are known to be there.
    claimed = sum(value.numel() * value.element_size() for value in kept.values())
    require(claimed <= size, "its tensors are larger than the file: damaged or forged")
    for key, value in kept.items():
        folded = value.detach().double() * res_scale if ".body.2." in key and res_scale != 1 else value.detach()
        kept[key] = folded.to(torch.float32, copy=True).contiguous()  # copy: never a view of the mapped file
    return kept


def _quantized(content: object, metadata: dict[str, str]) -> dict[str, Quantized]:
    """What `save` wrote of `Weights.quantized`, for `Weights` to check."""
    if not isinstance(content, dict):
        return {}

    def own(value: Any) -> Any:
        """A copy, as in `_convert`; what `Weights` refuses anyway stays, it may claim more bytes than there are."""
        plain = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta
        return value.clone() if plain and value.is_contiguous() else value

    found, none = {}, torch.empty(0)
    for name, key in _OF.items():
        parts = {k.removeprefix(f"{name}."): own(v) for k, v in content.items() if str(k).startswith(f"{name}.")}
        if "scale" in parts:
            layers = range(len(parts) // 2)
            weight, steps = (tuple(parts.get(f"{i}.{what}", none) for i in layers) for what in ("weight", "steps"))
            found[name] = Quantized(parts["scale"], weight, steps, metadata.get(key, ""))
    return found


def _check_quantized(name: str, found: Quantized, architecture: Architecture) -> None:
    form = next((form for form in FORMATS.values() if form.name == name), None)
    if form is None:
        raise CheckpointError(f"layers in {show(name)}, which is none of {', '.join(f.name for f in FORMATS.values())}")
    widths = architecture.hidden_list if architecture.decoder == "liif" else ()
    require(len(widths) > 1, f"it has {name} layers, but no hidden layers that could be")
    expected: list[tuple[str, object, tuple[int, ...], torch.dtype]] = [
        (f"{name}.scale", found.scale, (widths[0],), torch.float32)
    ]
    both = len(found.weight), len(found.steps)
    require(both == (len(widths) - 1,) * 2, f"{both[0]} {name} weights and {both[1]} steps of {len(widths) - 1} layers")
    for i, (weight, steps) in enumerate(zip(found.weight, found.steps, strict=True)):
        expected += [(f"{name}.{i}.weight", weight, (widths[i + 1], widths[i]), form.dtype)]
        expected += [(f"{name}.{i}.steps", steps, (2, widths[i + 1]), torch.float32)]
    for key, tensor, shape, dtype in expected:
        wrong = CheckpointError(f"{key} is not {dtype} of {shape}")
        if not (isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and tensor.device.type == "cpu"):
            raise wrong
        if not (tensor.is_contiguous() and tensor.shape == shape and tensor.dtype == dtype):
            raise wrong
        require(bool(torch.isfinite(tensor.float()).all()), f"{key} holds NaN or infinite values: damaged")
        large = float(tensor.float().abs().max())
        require(large <= _LARGEST, f"{key} holds {large:g}, beyond {_LARGEST:g}: damaged")
    require(bool((found.scale >= 1 / _LARGEST).all()), f"{name}.scale must be at least {1 / _LARGEST:g}")


def _count(layer: str, state: Mapping[str, object]) -> int:
    return sum(re.fullmatch(rf"{layer}\.weight", key) is not None for key in state)


def _dict(value: object, what: str) -> dict[Any, Any]:
    if not isinstance(value, dict):
        raise CheckpointError(f"not a checkpoint: {what} is {show(value)}, not a dict")
    return value


def _having(state: Mapping[str, object]) -> str:
    return f" (the file has {show(next(iter(state)))} and so on)" if state else ""
