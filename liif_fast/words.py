"""Words of messages that depend on numbers."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """So many of a thing; ``noun`` names one of them, and its plural ends in s."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
