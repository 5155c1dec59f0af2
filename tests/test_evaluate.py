"""`liif-fast eval`: pairs, scores, tables, strips, JSON, and what is left out."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from common import GOLDEN, ROOT
from liif_fast import Upscaler, cli, output
from liif_fast.training import strips, testset
from liif_fast.training.evaluate import bicubic, evaluate, fixed, lanczos, score
from liif_fast.training.metrics import PROTOCOLS, Protocol, psnr
from liif_fast.training.resize import resize

BENCHMARK = PROTOCOLS["benchmark"]
TINY = str(GOLDEN / "tiny.pth")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truth")
    photo = Image.open(ROOT / "docs" / "kitten.png").convert("RGB")
    photo.crop((60, 40, 131, 107)).save(folder / "face.png")
    photo.crop((10, 10, 75, 75)).convert("L").save(folder / "gray.png")
    return folder


def pairs_in(
    folder: Path, scales: Sequence[float], protocol: Protocol
) -> tuple[list[testset.Pair], list[testset.Skipped]]:
    used, skipped = zip(*(testset.pairs_of(path, scales, protocol) for path in testset.find(folder)), strict=True)
    return [*chain(*used)], [*chain(*skipped)]


def test_pairs(folder: Path) -> None:
    pairs, skipped = pairs_in(folder, [2, 3.7], BENCHMARK)
    assert not skipped
    assert [(p.name, p.scale) for p in pairs] == [
        (name, scale) for name in ("face.png", "gray.png") for scale in (2, 3.7)
    ]
    face = pairs[0]
    assert face.hr.shape == (66, 70, 3)
    assert face.lr.shape == (33, 35, 3)
    planes = torch.from_numpy(face.hr).permute(2, 0, 1).double()
    expected = resize(planes, (33, 35)).clamp(0, 255).permute(1, 2, 0).numpy()
    assert np.abs(face.lr - expected).max() <= 0.5 + 1e-5
    assert pairs[1].lr.shape == (18, 19, 3)
    assert pairs[1].hr.shape == (67, 70, 3)
    assert (pairs[2].hr[..., 0] == pairs[2].hr[..., 2]).all()


def test_a_picture_that_is_too_small_for_a_scale() -> None:
    """Of which less is used than there is."""
    with pytest.raises(ValueError, match=r"^256 x 250 pixels, of which 200 x 200 are used, 211 x 211 are needed$"):
        testset.pair("a", np.zeros((250, 256, 3), np.uint8), 100, BENCHMARK)


def test_scores(folder: Path) -> None:
    pairs, _ = pairs_in(folder, [2], BENCHMARK)
    perfect = evaluate(lambda lr, size: next(p.hr for p in pairs if p.lr is lr) / 255, pairs)[2]
    assert perfect.psnr == perfect.psnr_rounded == float("inf")
    found = {name: evaluate(method, pairs)[2] for name, method in (("bicubic", bicubic), ("lanczos", lanczos))}
    for summary in found.values():
        assert 20 < summary.psnr < 50
        assert abs(summary.psnr - summary.psnr_rounded) < 0.3
        assert 0.5 < summary.ssim < 1
        assert summary.psnr == pytest.approx(np.mean([s.psnr for s in summary.scores]))
    assert found["bicubic"].psnr != found["lanczos"].psnr


def test_predictions_are_clamped_and_rounded(folder: Path) -> None:
    pair = pairs_in(folder, [2], BENCHMARK)[0][0]
    extreme = testset.Pair("black and white", 2, pair.lr, np.where(pair.hr > 127, 255, 0).astype(np.uint8))
    assert score(lambda lr, size: extreme.hr / 100 - 0.5, extreme, BENCHMARK)[0].psnr == float("inf")
    truth = pair.hr / 255
    found, prediction = score(lambda lr, size: (truth + 0.4 / 255).clip(0, 1), pair, BENCHMARK)
    assert found.psnr == pytest.approx(psnr(prediction, truth, 2, BENCHMARK))
    assert 55 < found.psnr < 60  # 0.4 of a step
    assert found.psnr_rounded == float("inf")
    assert found.ssim == pytest.approx(1)


def test_an_equal_picture_is_not_in_the_mean(folder: Path) -> None:
    """One of a single colour comes back as it was, to the last bit of a float32 at the best."""
    pairs, _ = pairs_in(folder, [2], BENCHMARK)
    flat = testset.pair("flat", np.full((40, 40, 3), (77, 130, 201), np.uint8), 2, BENCHMARK)
    assert score(bicubic, flat, BENCHMARK)[0].psnr_rounded == float("inf")
    alone, beside = (evaluate(bicubic, these)[2] for these in (pairs, [*pairs, flat]))
    assert (alone.equal, beside.equal) == (0, 1)
    assert (beside.psnr, beside.psnr_rounded) == (alone.psnr, alone.psnr_rounded)
    assert evaluate(bicubic, [flat])[2].psnr_rounded == float("inf")


def test_network_and_fixed_scale(folder: Path) -> None:
    pairs, _ = pairs_in(folder, [4], BENCHMARK)
    up = Upscaler(TINY, precision="fp32")
    direct = evaluate(up, pairs)[4]
    # At its own scale the fixed-scale network needs no second resize.
    again = evaluate(fixed(up, 4), [p for p in pairs if p.hr.shape[0] == 4 * p.lr.shape[0]])[4]
    assert again.psnr == pytest.approx(direct.psnr, abs=1e-4)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["eval", *map(str, arguments)], prog_name="liif-fast")


def test_command(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for path in folder.iterdir():
        (tmp_path / "pictures" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pictures" / "broken.png").write_bytes(b"\x89PNG nothing")
    Image.new("RGB", (9, 9)).save(tmp_path / "pictures" / "small.png")
    report = tmp_path / "report.json"
    done = run(
        TINY, "--data", tmp_path / "pictures", "--scales", "2,3", "--fixed", TINY, "--strips", tmp_path / "strips",
        "--json", report, "--precision", "fp32",
    )  # fmt: skip
    assert done.exit_code == 1, done.stderr
    assert "2 of 4 pictures skipped" in done.stderr
    assert "small.png: 9 x 9 pixels" in done.stderr
    (tmp_path / "pictures" / "broken.png").unlink()
    Image.new("RGB", (20, 20)).save(tmp_path / "pictures" / "small.png")
    some = run(TINY, "--data", tmp_path / "pictures", "--scales", "2,40", "--precision", "fp32")
    assert some.stderr.splitlines()[-1] == "liif-fast: error: 3 skipped at some of the scales"
    assert "pictures x40: no picture could be used" in some.stdout
    (tmp_path / "pictures" / "broken.png").write_bytes(b"\x89PNG nothing")
    some = run(TINY, "--data", tmp_path / "pictures", "--scales", "2,40", "--precision", "fp32")
    assert (
        some.stderr.splitlines()[-1]
        == "liif-fast: error: 1 of 4 pictures skipped, 3 more skipped at some of the scales"
    )
    for row in ("bicubic", "Lanczos", "tiny ", "tiny x4, Lanczos", "x2, 2 pictures", "x3, 2 pictures"):
        assert row in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
    content = json.loads(report.read_text())
    (only,) = content["sets"]
    assert {(r["scale"], r["method"]) for r in only["results"]} == {
        (scale, method) for scale in (2, 3) for method in ("bicubic", "Lanczos", "tiny", "tiny x4, Lanczos")
    }
    assert content["models"][TINY]["fingerprint"]
    assert len(only["results"][0]["pictures"]) == 2
    names = sorted(path.name for path in (tmp_path / "strips").iterdir())
    assert names == [f"pictures_{name}_x{scale}.png" for name in ("face", "gray") for scale in (2, 3)]
    with Image.open(tmp_path / "strips" / names[0]) as strip:
        assert strip.size[0] > 5 * 60  # truth, two baselines, two of the network


def test_command_is_the_function(folder: Path, tmp_path: Path) -> None:
    """The command line measures what `evaluate` does, by the protocol asked for."""
    report = tmp_path / "report.json"
    options = "--scales", "2", "--protocol", "div2k", "--precision", "fp32", "--json", report
    assert run(TINY, "--data", folder, *options).exit_code == 0
    pairs, _ = pairs_in(folder, [2], PROTOCOLS["div2k"])
    expected = evaluate(Upscaler(TINY, precision="fp32"), pairs, PROTOCOLS["div2k"])[2]
    (found,) = (r for r in json.loads(report.read_text())["sets"][0]["results"] if r["method"] == "tiny")
    assert [p["psnr"] for p in found["pictures"]] == pytest.approx([s.psnr for s in expected.scores], abs=1e-6)
    assert found["ssim"] == pytest.approx(expected.ssim, abs=1e-6)


def test_self_ensemble(folder: Path, tmp_path: Path) -> None:
    report, model = tmp_path / "report.json", "realtime-small"
    options = "--data", folder, "--scales", "2", "--precision", "fp32", "--json", report
    assert run(model, *options, "--self-ensemble").exit_code == 0
    pairs, _ = pairs_in(folder, [2], PROTOCOLS["benchmark"])
    expected = evaluate(Upscaler(model, precision="fp32", self_ensemble=True), pairs)[2]
    alone = evaluate(Upscaler(model, precision="fp32"), pairs)[2]
    (found,) = (r for r in json.loads(report.read_text())["sets"][0]["results"] if r["method"] == "realtime-small+")
    assert found["psnr"] == pytest.approx(expected.psnr, abs=1e-6)
    assert expected.psnr > alone.psnr
    done = run("edsr-baseline", *options, "--self-ensemble")
    assert done.exit_code == 2
    assert "not for edsr-baseline" in done.stderr


def test_equal_pictures_are_null_in_json(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (40, 40)).save(tmp_path / "flat" / "black.png")
    done = run(TINY, "--data", tmp_path / "flat", "--scales", "2", "--json", tmp_path / "report.json")
    assert done.exit_code == 0, done.stderr
    assert "inf" in done.stdout
    assert "equal, left out" not in done.stdout
    results = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)["sets"][0]["results"]
    assert results[0]["method"] == "bicubic"
    assert results[0]["psnr"] is None


def test_equal_pictures_are_left_out_of_means(folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "black.png")
    Image.open(folder / "face.png").save(tmp_path / "face.png")
    done = run(TINY, "--data", tmp_path, "--scales", "2")
    assert done.exit_code == 0, done.stderr
    assert "inf" not in done.stdout
    assert "bicubic: 1 of them equal, left out of its mean PSNR" in done.stdout.splitlines()


def test_two_folders_of_one_name(folder: Path, tmp_path: Path) -> None:
    for place in "ab":
        (tmp_path / place / "HR").mkdir(parents=True)
        (tmp_path / place / "HR" / "face.png").write_bytes((folder / "face.png").read_bytes())
    out = tmp_path / "strips"
    done = run(TINY, "--data", tmp_path / "a" / "HR", "--data", tmp_path / "b" / "HR", "--scales", "2", "--strips", out)
    assert done.exit_code == 0, done.stderr
    assert len(list(out.iterdir())) == 2


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, dtype: str, channels: int) -> None:
    bytes_ = np.random.default_rng(0).integers(0, 256, (3, 5, channels))
    peak = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    with output.writer(tmp_path / "a.tif", bytes_.shape, dtype) as out:
        out.write((bytes_ / 255 * peak).astype(dtype) if dtype == "float32" else (bytes_ * (peak // 255)).astype(dtype))
    found = testset.read(tmp_path / "a.tif")
    assert found.dtype == np.uint8
    assert (found == (bytes_[..., :3] if channels > 2 else bytes_[..., :1])).all()
    assert found.shape == (3, 5, 3)


def test_the_detail_is_where_the_gain_is() -> None:
    truth = np.full((150, 200, 3), 0.5)
    worse, better = truth.copy(), truth.copy()
    worse[100:130, 150:170] += 0.2
    better[10:60, 10:60] += 0.3  # large errors of the better one are no gain
    worse[:2] += 0.5  # the border does not count
    rows, columns = strips.detail(truth, worse, better, 3)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (strips.SIDE, strips.SIDE)
    assert rows.start <= 100
    assert rows.stop >= 130
    assert rows.stop <= 147
    assert columns.start <= 150
    assert columns.stop >= 170


def test_labels_fit_their_panels() -> None:
    image = np.zeros((30, 20, 3))
    sheet = strips.strip([("a name much longer than its panel", image), ("b", image)], (slice(0, 30), slice(0, 20)))
    panel = 20 * strips.ENLARGE
    assert (sheet[:, panel : panel + 4] == 255).all()  # the gap


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--data", ".", "--scales", "1"], "numbers above 1"),
        (["--data", ".", "--scales", "two"], "'two'"),
        (["--data", ".", "--protocol", "best"], "'best'"),
        (["--data", "docs", "--fixed", "no-such"], "no-such"),
        (["--data", "docs", "--fixed", TINY, "--fixed-scale", "nan"], "--fixed-scale"),
        (["--data", "docs", TINY], "'tiny'"),
        (["--data", "docs", "--json", "no/such/file.json"], "no/such"),
        (["--data", "docs", "--cell-clamp", "soon"], "--cell-clamp"),
        (["--data", "docs", "--strip-count", "3"], "--strips"),
        (["--data", "README.md"], "README.md: not a folder"),
        (["--data", "csrc"], "csrc: no picture"),
        ([], "--data"),
    ],
)
def test_refused(monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str) -> None:
    monkeypatch.chdir(ROOT)
    done = run(TINY, *arguments)
    assert done.exit_code == 2
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_nothing_usable(tmp_path: Path) -> None:
    Image.new("RGB", (5, 5)).save(tmp_path / "tiny.png")
    done = run(TINY, "--data", tmp_path)
    assert done.exit_code == 2
    assert "no picture could be used" in done.stderr


def test_lpips_needs_its_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    done = run(TINY, "--data", folder, "--lpips")
    assert done.exit_code == 2
    assert "liif_fast[lpips]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_lpips(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's own figure, of what the border leaves, rounded; its AlexNet is drawn at random here."""
    try:
        import lpips
        import torchvision
    except (ImportError, RuntimeError) as error:  # torchvision of another torch
        pytest.skip(f"no LPIPS here: {error}")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    done = run(TINY, "--data", folder, "--lpips")
    assert done.exit_code == 2
    assert "AlexNet, which torchvision could not load: no network" in done.stderr
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True, exist_ok=True)
    url = torchvision.models.AlexNet_Weights.DEFAULT.url
    torch.save(torchvision.models.alexnet().state_dict(), cache / Path(url).name)
    report = tmp_path / "report.json"
    done = run(TINY, "--data", folder, "--lpips", "--scales", "2,3.7", "--precision", "fp32", "--json", report)
    assert done.exit_code == 0, done.stderr
    assert "LPIPS" in done.stdout
    reference = lpips.LPIPS(net="alex", verbose=False)
    up = Upscaler(TINY, precision="fp32")
    (only,) = json.loads(report.read_text())["sets"]
    for pair in pairs_in(folder, [2, 3.7], BENCHMARK)[0]:
        (result,) = (r for r in only["results"] if (r["scale"], r["method"]) == (pair.scale, "tiny"))
        (found,) = (p["lpips"] for p in result["pictures"] if p["name"] == pair.name)
        prediction = testset.to_bytes(up(pair.lr.astype(np.float32) / 255, size=pair.hr.shape[:2]))
        border = math.ceil(pair.scale)
        a, b = (
            torch.from_numpy(image[border:-border, border:-border]).permute(2, 0, 1)[None] / 127.5 - 1
            for image in (prediction, pair.hr)
        )
        assert found == pytest.approx(float(reference(a, b)), rel=1e-4)
        assert found > 1e-3
