"""Films: enlarge one, embed it in a pipeline, zoom into a picture. Needs PyAV, the extra ``liif_fast[video]``.

from liif_fast import video
for frame in video.upscale("in.mp4", size=(2160, 3840)):       # numpy, one after the other
    ...
video.zoom("photo.jpg", "out.mp4", to=(0.45, 0.30, 0.55, 0.36))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import VideoError
    from .frames import upscale
    from .motion import zoom

__all__ = ["VideoError", "upscale", "zoom"]

_FROM = {"VideoError": "errors", "upscale": "frames", "zoom": "motion"}


if not TYPE_CHECKING:  # or type checkers would take every name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _FROM:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f".{_FROM[name]}", __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
