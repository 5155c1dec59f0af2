"""The run's log as CSV, and its curves as a picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from ..output import one_line_errors, whole_file, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOG, CURVES = "log.csv", "curves.png"
_FIELDS = ["iteration", "loss", "lr", "iterations_per_s"]


class MissingLibrary(RuntimeError):
    """matplotlib, which draws curves, is not installed."""


def check_library() -> None:
    """MissingLibrary without matplotlib: better said before the work than after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingLibrary(f"curves need matplotlib ({error}): pip install 'liif_fast[train]'") from None


class Log:
    """Rows of ``log.csv`` in a run's folder.

    What an earlier sitting wrote past ``iteration``, where its state was saved, is dropped, for it happens again; so is
    a last line that was not written to its end. ValueError for a file that was damaged or edited into something else.
    """

    def __init__(self, folder: Path, iteration: int) -> None:
        self.folder = folder
        self.rows: list[dict[str, str]] = []
        self._fields: list[str] = []  # of the file, once it is this sitting's
        path = folder / LOG
        if iteration and path.exists():
            try:
                text = path.read_text(encoding="utf-8")
                rows = list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1])))
                self.rows = [row for row in rows if int(row["iteration"]) <= iteration]
                for row in self.rows:  # what will be drawn
                    psnr = (value for key, value in row.items() if key.startswith("psnr_") and value)
                    list(map(float, (row["loss"], *psnr)))
            except (AttributeError, KeyError, TypeError, ValueError, csv.Error) as error:
                raise ValueError(f"{path}: no longer a run's log ({error!r}): move it away") from None

    def add(self, iteration: int, loss: float, lr: float, speed: float, psnr: dict[float, float]) -> None:
        row = {"iteration": iteration, "loss": f"{loss:.6f}", "lr": f"{lr:.3e}", "iterations_per_s": f"{speed:.4g}"}
        row |= {f"psnr_x{scale:g}": f"{value:.4f}" for scale, value in psnr.items()}
        self.rows.append({key: str(value) for key, value in row.items()})
        path, text, complete = self.folder / LOG, io.StringIO(), row.keys() <= set(self._fields)
        if not complete:
            self._fields = [*_FIELDS, *sorted({key for row in self.rows for key in row} - {*_FIELDS})]
        writer = csv.DictWriter(text, self._fields, restval="", lineterminator="\n")
        if complete:
            writer.writerow(self.rows[-1])
            with one_line_errors(str(path)), path.open("a", encoding="utf-8") as file:
                file.write(text.getvalue())
            return
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(path, text.getvalue())

    def draw(self) -> None:
        """``curves.png``: loss, smoothed, and the PSNR of each scale."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        at, loss = ([float(row[key]) for row in self.rows] for key in ("iteration", "loss"))
        left.plot(at, loss, color="0.8", linewidth=0.7)
        smooth: list[float] = []
        for value in loss:
            smooth.append(value if not smooth else 0.9 * smooth[-1] + 0.1 * value)
        left.plot(at, smooth)
        left.set(xlabel="iteration", ylabel="L1 loss", yscale="log")
        for key in sorted({key for row in self.rows for key in row if key.startswith("psnr_")}):
            points = [(float(row["iteration"]), float(row[key])) for row in self.rows if row.get(key)]
            right.plot(*zip(*points, strict=True), marker=".", label=key.removeprefix("psnr_"))
        right.set(xlabel="iteration", ylabel="PSNR on Y, held-out pictures (dB)")
        if right.lines:
            right.legend()
        save_figure(figure, self.folder / CURVES)


def save_figure(figure: Figure, path: Path) -> None:
    """A PNG, whole or not at all; an older one is replaced."""
    drawn = io.BytesIO()  # Pillow writing to the file itself would lose the errno of a full disk
    figure.savefig(drawn, format="png", dpi=100)
    with whole_file(path, force=True) as file:
        file.write(drawn.getbuffer())
