"""The encoded image: a continuous function of position rendered in any window at any size, or sampled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from . import grid, pages, tiling
from .device_memory import if_it_fits
from .encoder import BaseEncoder, in_tiles
from .ops import Decoder
from .pixels import OUT_RANGE
from .resample import Resampler

Box = tuple[float, float, float, float]
Progress = Callable[[int, int], None]
Features = Callable[[tiling.Span, tiling.Span], tuple[torch.Tensor, int, int]]


# Pixels decoded between two reports of progress: about a second on two cores. A GPU would wait between so few. Where
# nobody wants reports it is a frame of a film, and still not all of a large picture: in between it can be interrupted.
REPORT_PIXELS = {"cpu": 1 << 18, "cuda": 1 << 24}
_UNREPORTED = 8


def least_memory(encoder: BaseEncoder) -> int:
    """Bytes that a `Field` takes however few it is given: for the smallest tile worth encoding."""
    return tiling.least_cells(encoder.halo) * encoder.bytes_per_cell * 4 // 3


class Field:
    """One picture of 1 or 3 channels as LIIF sees it.

    Args:
        color: [H, W, 1 or 3] uint8, uint16, float16 or float32, floats in [0, 1].
        encoder, decoder: of one network, for one device and dtype.
        max_memory: bytes that features and band buffers may take; `least_memory` is taken in any case.
        cell_clamp: scale beyond which the decoder's cell input stays as it is there; None for the paper's unclamped
            one.
        keep: encode once and hold all features, if ``max_memory`` and the device allow; otherwise each rendering
            encodes, tile by tile, what it needs.
    """

    def __init__(
        self,
        color: torch.Tensor,
        encoder: BaseEncoder,
        decoder: Decoder | Resampler,
        max_memory: int,
        cell_clamp: float | None = 4.0,
        keep: bool = False,
    ) -> None:
        self.color, self.encoder, self.decoder, self.cell_clamp = color, encoder, decoder, cell_clamp
        self.height, self.width, self.channels = color.shape
        # A quarter for the rows being assembled and converted, the rest for one tile on its way through the encoder.
        self.band_bytes = max_memory // 4
        room = (max_memory - self.band_bytes) // encoder.bytes_per_cell
        self.max_cells = max(tiling.least_cells(encoder.halo), min(room, encoder.most_cells))
        z_bytes = self.height * self.width * encoder.width * encoder.dtype.itemsize
        self.z: torch.Tensor | None = None
        if keep and 2 * z_bytes <= max_memory:
            with if_it_fits():  # a device may be fuller than it said
                self.z = self._encode_all()

    def bands(
        self,
        size: tuple[int, int],
        box: Box | None = None,
        dtype: torch.dtype = torch.float32,
        progress: Progress | None = None,
        first_row: int = 0,
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """The window ``box`` (top, left, bottom, right in input pixels; None: all) at ``size`` (height, width), from
        top to bottom in bands of rows: (first row, [rows, width, channels]), in bounded memory.

        uint8 and uint16 span their type's range, floats span [0, 1]. In memory bands lie by pixels or by channels, as
        the picture does.
        """
        rows, columns = size
        top, left, bottom, right = grid.check_box(box, self.height, self.width)
        y, x, cell = self.tables(size, (top, left, bottom, right))
        y = y.part(first_row, rows)
        # Three values a pixel and their gray mean; twice, as whoever has a band may hold it while the next is made. The
        # same for colour, so that the bands of a picture's colour and alpha are the same rows.
        band_rows = max(1, self.band_bytes // (8 * dtype.itemsize * columns))
        tall = int(band_rows * (bottom - top) / rows)
        down, across, features = self._sweep(y, x, tall)
        done = first_row * columns
        for span_y in down:
            # With one tile across, its features serve several bands; with more, the band must hold all its rows.
            step = band_rows if len(across) == 1 else span_y.stop - span_y.start
            band = torch.empty(0, device=self.color.device)
            for span_x in across:
                z, origin_y, origin_x = features(span_y, span_x)
                tile_x = x.part(span_x.start, span_x.stop, origin_x).to(z.device)
                for start in range(span_y.start, span_y.stop, step):
                    stop = min(span_y.stop, start + step)
                    if span_x is across[0]:
                        band = pages.like(self.color, (stop - start, columns), dtype, z.device)
                    pixels = REPORT_PIXELS[z.device.type] * (1 if progress else _UNREPORTED)
                    pieces = max(1, pixels // tile_x.size)
                    for first in range(start, stop, pieces):
                        last = min(stop, first + pieces)
                        tile_y = y.part(first, last, origin_y).to(z.device)
                        self.decode(
                            z, tile_y, tile_x, cell, band[first - start : last - start, span_x.start : span_x.stop]
                        )
                        done += (last - first) * tile_x.size
                        if progress:
                            progress(done, rows * columns)
                    if span_x is across[-1]:
                        yield first_row + start, band

    def _sweep(self, y: Any, x: Any, tall: int) -> tuple[Iterator[tiling.Span], list[tiling.Span], Features]:
        """A window from top to bottom: its spans of rows and of columns, and what has their features, see `_features`.

        ``tall``: cells that a band is high, which has to hold all rows of tiles that lie side by side.
        """
        halo = self.encoder.halo
        length_y, length_x = (int(axis.index.max()) + 1 - int(axis.index.min()) for axis in (y, x))
        features: Features = self._features
        if self.z is None:
            (whole_y,), (whole_x,) = (
                tiling.spans(y.index, self.height, halo, length_y),
                tiling.spans(x.index, self.width, halo, length_x),
            )
            crop = self._crop(whole_y, whole_x)
            fits = crop.shape[0] * crop.shape[1] <= self.max_cells
            scroll = None if fits else self.encoder.scroll(crop, self.max_cells)
            if scroll:
                length_y = scroll.length

                def features(span_y: tiling.Span, span_x: tiling.Span) -> tuple[torch.Tensor, int, int]:
                    first, last = int(y.index[0, span_y.start]), int(y.index[-1, span_y.stop - 1]) + 1
                    top = whole_y.crop_start
                    return scroll(first - top, last - top), first, whole_x.crop_start

            else:
                tall = max(tiling.least_side(halo), tall)
                length_y, length_x = tiling.tile_shape(length_y, length_x, halo, self.max_cells, tall)
        down = tiling.spans(y.index, self.height, halo, length_y)
        return down, list(tiling.spans(x.index, self.width, halo, length_x)), features

    def touched(self, size: tuple[int, int], part: tuple[int, int, int, int]) -> tuple[tiling.Span, tiling.Span]:
        """The rows and columns of the picture at ``size`` that depend on cells [top, bottom) by [left, right)."""
        y, x, _ = self.tables(size, (0, 0, self.height, self.width))
        (top, bottom, left, right), halo = part, self.encoder.halo
        return (
            tiling.touched(y.index, top, bottom, self.height, halo),
            tiling.touched(x.index, left, right, self.width, halo),
        )

    def piece(self, size: tuple[int, int], span_y: tiling.Span, span_x: tiling.Span) -> torch.Tensor:
        """These rows and columns of the picture at ``size``, of the input's dtype."""
        y, x, cell = self.tables(size, (0, 0, self.height, self.width))
        z, origin_y, origin_x = self._features(span_y, span_x)
        tile_x = x.part(span_x.start, span_x.stop, origin_x)
        dtype = self.color.dtype
        piece = pages.like(self.color, (span_y.stop - span_y.start, tile_x.size), dtype, z.device)
        pixels = min(self.band_bytes // (8 * dtype.itemsize), REPORT_PIXELS[z.device.type] * _UNREPORTED)
        step = max(1, pixels // tile_x.size)
        for first in range(span_y.start, span_y.stop, step):
            last = min(span_y.stop, first + step)
            rows = piece[first - span_y.start : last - span_y.start]
            self.decode(z, y.part(first, last, origin_y), tile_x, cell, rows)
        return piece

    def shrink(self) -> bool:
        """Halves the memory that rendering takes, as a device had less than there should be; False at the end."""
        kept, self.z = self.z, None
        if kept is None:
            self.band_bytes //= 2
            self.max_cells //= 2
        return self.max_cells >= tiling.least_cells(self.encoder.halo)

    def tables(self, size: tuple[int, int], box: Box) -> tuple[Any, Any, tuple[float, float]]:
        """Where the rows and columns of a window at ``size`` look, and the decoder's cell."""
        (rows, columns), (top, left, bottom, right) = size, box
        grid.check_scale(rows, bottom - top)
        grid.check_scale(columns, right - left)
        cell = (grid.cell(top, bottom, rows, self.cell_clamp), grid.cell(left, right, columns, self.cell_clamp))
        y = self.decoder.tables(grid.centres(top, bottom, rows), self.height, cell[0])
        return y, self.decoder.tables(grid.centres(left, right, columns), self.width, cell[1]), cell

    def sample(self, points: torch.Tensor, scale: float | None = None) -> torch.Tensor:
        """Colours at ``points`` [N, 2] = (y, x) in input pixels, edge based: float32 [N, channels] in [0, 1].

        ``scale``: that of the picture the points are thought to belong to, at least 0.5; it sets the decoder's cell, as
        in a rendering at that scale. None: ``cell_clamp``, or 4. Without kept features every call encodes what it
        needs.
        """
        if points.dim() != 2 or points.shape[1] != 2:
            raise ValueError(f"points must be [N, 2] of (y, x), got {tuple(points.shape)}")
        at = points.detach().cpu().to(torch.float64).numpy()
        inside = (at >= 0).all(axis=1) & (at <= (self.height, self.width)).all(axis=1)  # also False for NaN
        if not inside.all():
            bad = tuple(at[np.flatnonzero(~inside)[0]].tolist())
            raise ValueError(f"point {bad} is outside the {self.height} x {self.width} (height x width) input")
        out = torch.empty(len(at), self.channels, dtype=torch.float32, device=self.color.device)
        scale = (self.cell_clamp or 4.0) if scale is None else grid.factor(scale)
        side = grid.cell(0, 1, scale, self.cell_clamp)
        y = self.decoder.tables(at[:, 0], self.height, side)
        x = self.decoder.tables(at[:, 1], self.width, side)
        for (span_y, span_x), chosen in self._tiles_of(y, x):
            z, origin_y, origin_x = self._features(span_y, span_x)
            tile_y, tile_x = y.pick(chosen, origin_y), x.pick(chosen, origin_x)
            colors = torch.empty(len(chosen), self.channels, dtype=torch.float32, device=z.device)
            self.decode(z, tile_y.to(z.device), tile_x.to(z.device), (side, side), colors, paired=True)
            out[chosen] = colors
        return out

    def _tiles_of(self, y: Any, x: Any) -> Iterator[tuple[tuple[tiling.Span, tiling.Span], torch.Tensor]]:
        """Points grouped by the tile that holds their cells: ((span of y, span of x), which points)."""
        halo = self.encoder.halo
        if self.z is not None:
            whole = tiling.Span(0, 0, 0, self.height), tiling.Span(0, 0, 0, self.width)
            yield whole, torch.arange(y.size, device="cpu")
            return
        high, wide = tiling.tile_shape(self.height, self.width, halo, self.max_cells, self.height)
        first_y, first_x = y.index.amin(dim=0), x.index.amin(dim=0)
        tile = torch.stack([first_y // high, first_x // wide], dim=1)
        for row, column in torch.unique(tile, dim=0).tolist():
            chosen = torch.nonzero((tile[:, 0] == row) & (tile[:, 1] == column))[:, 0]
            # Neighbours may lie past the tile.
            beyond_y, beyond_x = (int((t.index[-1] - t.index[0])[chosen].max()) for t in (y, x))
            span_y, span_x = (
                tiling.Span(0, 0, *tiling.crop(i * n, (i + 1) * n + beyond, cells, halo))
                for i, n, cells, beyond in (
                    (row, high, self.height, beyond_y),
                    (column, wide, self.width, beyond_x),
                )
            )
            yield (span_y, span_x), chosen

    def _features(self, y: tiling.Span, x: tiling.Span) -> tuple[torch.Tensor, int, int]:
        """z of at least the spans' cells and the cell its first row and column are."""
        if self.z is not None:
            return self.z, 0, 0
        return self.encoder(self._crop(y, x)), y.crop_start, x.crop_start

    def _crop(self, y: tiling.Span, x: tiling.Span) -> torch.Tensor:
        return self.color[y.crop_start : y.crop_stop, x.crop_start : x.crop_stop]

    def _encode_all(self) -> torch.Tensor:
        """z of the whole picture, tile by tile where the encoder's own buffers would not fit at once."""
        halo = self.encoder.halo
        high, wide = tiling.tile_shape(self.height, self.width, halo, self.max_cells, self.height)
        if (high, wide) == (self.height, self.width):
            return self.encoder(self.color)
        z = pages.empty(
            self.height, self.width, self.encoder.width, dtype=self.encoder.dtype, device=self.encoder.device
        )
        if scroll := self.encoder.scroll(self.color, self.max_cells):
            for row in range(0, self.height, scroll.length):
                end = min(self.height, row + scroll.length)
                z[row:end] = scroll(row, end)[: end - row]
        else:
            in_tiles(self.encoder, self.color, halo, (high, wide), z)
        return z

    def decode(
        self,
        z: torch.Tensor,
        y: Any,
        x: Any,
        cell: tuple[float, float],
        out: torch.Tensor,
        paired: bool = False,
    ) -> None:
        """z at the queries of two tables into ``out``, [.., channels] of any dtype of a picture."""
        with torch.autocast(z.device.type, enabled=False):  # of the caller's own, with which "reference" would round
            if self.channels == 3:
                self.decoder(z, y, x, cell, out, paired)
                return
            # The network answers in colour; a gray picture's three answers differ by its error only.
            color = torch.empty(*out.shape[:-1], 3, dtype=torch.float32, device=out.device)
            self.decoder(z, y, x, cell, color, paired, peak=OUT_RANGE[out.dtype])
            gray = color.mean(dim=-1, keepdim=True)
            out.copy_(gray if out.dtype.is_floating_point else gray.round_())
