"""The mean of two networks' weights: of a run and what it began from, or between what the two are good at."""

from __future__ import annotations

from dataclasses import asdict

from ..checkpoint import Weights


def blend(first: Weights, second: Weights, share: float) -> Weights:
    """``1 - share`` of the first network's weights and ``share`` of the second's.

    Of use where one was trained from the other, or both from a third, and not for long: then all that lie between are
    networks too, often better ones (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022). Layers in 8
    bits are left out, as they were measured of others. ValueError for a share outside [0, 1] and for networks of
    different shapes.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of {second.name} must be in [0, 1], got {share}")
    ours, theirs = asdict(first.architecture), asdict(second.architecture)
    other = [f"{key} {ours[key]} and {theirs[key]}" for key in ours if ours[key] != theirs[key]]
    if other:
        raise ValueError(f"{first.name} and {second.name} are of different shapes: {', '.join(other)}")
    tensors = {key: tensor.lerp(second.tensors[key], share) for key, tensor in first.tensors.items()}
    metadata = {key: value for key, value in first.metadata.items() if second.metadata.get(key) == value}
    parts = ((1 - share, first), (share, second))
    metadata["recipe"] = " and ".join(f"{part:g} of {one.name}, network {one.fingerprint}" for part, one in parts)
    return Weights(first.architecture, tensors, metadata=metadata)
