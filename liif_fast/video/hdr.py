"""The static metadata of HDR10: read from decoded frames, written through the options of encoders."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

_HDR = (16, 18)  # transfers of ISO/IEC 23091-2: PQ and HLG


@dataclass(frozen=True)
class Mastering:
    """What the film was mastered on (SMPTE ST 2086) and how bright it gets (CTA-861.3). Empty where it does not say."""

    # (x, y) of red, green, blue and white in CIE 1931
    display: tuple[tuple[Fraction, Fraction], ...] = ()
    luminance: tuple[Fraction, Fraction] | None = None  # (darkest, brightest), cd/m2
    light: tuple[int, int] | None = None  # (brightest pixel, brightest frame average), cd/m2

    @classmethod
    def of(cls, frame: Any) -> Mastering:
        """From the side data of a decoded frame, in ffmpeg's layout; empty where it is not HDR."""
        display: tuple[tuple[Fraction, Fraction], ...] = ()
        luminance = light = None
        # Only where there can be any: PyAV frees the tags of side data, as of a PNG's colour profile, twice.
        if frame.color_trc not in _HDR:
            return cls()
        try:
            every = list(frame.side_data)
        except ValueError:  # one of a type that PyAV does not know, as EXIF, hides all others
            return cls()
        for data in every:
            name = data.type.name
            if name == "MASTERING_DISPLAY_METADATA":
                # AVMasteringDisplayMetadata: ten pairs (numerator, denominator), then two flags.
                numbers = struct.unpack_from("=22i", bytes(data))
                pairs = [Fraction(n, d or 1) for n, d in zip(numbers[:20:2], numbers[1:20:2], strict=True)]
                if numbers[20]:
                    display = tuple(zip(pairs[:8:2], pairs[1:8:2], strict=True))
                if numbers[21]:
                    luminance = (pairs[8], pairs[9])
            elif name == "CONTENT_LIGHT_LEVEL":
                light = struct.unpack_from("=2I", bytes(data))
        return cls(display, luminance, light)

    def options(self, codec: str) -> dict[str, str]:
        """What makes ``codec`` write it; empty where there is nothing, or no way."""
        if codec not in ("libx265", "libsvtav1") or not (self.light or (self.display and self.luminance)):
            return {}
        parts = []
        if self.display and self.luminance:
            spot = "G({},{})B({},{})R({},{})WP({},{})L({},{})"
            if codec == "libx265":  # in steps of 0.00002 and 0.0001 cd/m2
                values = [round(v * 50000) for i in (1, 2, 0, 3) for v in self.display[i]]
                text = spot.format(*values, round(self.luminance[1] * 10000), round(self.luminance[0] * 10000))
                parts.append(f"master-display={text}")
            else:
                plain = [f"{float(v):.5f}" for i in (1, 2, 0, 3) for v in self.display[i]]
                text = spot.format(*plain, f"{float(self.luminance[1]):.4f}", f"{float(self.luminance[0]):.4f}")
                parts.append(f"mastering-display={text}")
        if self.light:
            name = "max-cll" if codec == "libx265" else "content-light"
            parts.append(f"{name}={self.light[0]},{self.light[1]}")
        if codec == "libx265":
            return {"x265-params": ":".join(["hdr10=1", "repeat-headers=1", *parts])}
        return {"svtav1-params": ":".join(parts)}
