"""Format measured values with their units."""

from __future__ import annotations


def format_amount(value: float, unit: str) -> str:
    """Format a measured value with its unit: 82.01 %, 1.25 points, 61.3 ms, 1.53 MB (10^6 bytes) or 0.31x."""
    if unit in ("share", "points"):
        hundredths = round(100 * value, 2) + 0.0  # a small loss below zero is 0.00, not -0.00
        return f"{hundredths:.2f} {'%' if unit == 'share' else 'points'}"
    if unit == "bytes":
        return f"{_format_short(value / 1e6)} MB" if value >= 1e6 else f"{_format_short(value / 1e3)} kB"
    return f"{_format_short(value)}{'x' if unit == 'ratio' else ' ms'}"


def format_optional(value: float | None, unit: str) -> str:
    """Format an amount; a dash if nothing was measured."""
    return "-" if value is None else format_amount(value, unit)


def format_milliseconds(value: float) -> str:
    """Format milliseconds with three significant digits: 0.412, 61.3, 1204."""
    return format_amount(value, "ms").removesuffix(" ms")


def format_interval(low: float, high: float) -> str:
    """Format a 95 % interval of rates in percent: 80.73 to 83.25."""
    return f"{100 * low:.2f} to {100 * high:.2f}"


def _format_short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def format_memory(gib: float | None) -> str:
    """The memory of a machine."""
    return "unknown memory" if gib is None else f"{gib} GiB"
