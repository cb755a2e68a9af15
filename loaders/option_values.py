"""Values of command line options, for argparse."""

from __future__ import annotations

import argparse
import datetime as dt
from collections.abc import Sequence

from loaders.times import parse_duration, parse_time


def bind_relative_times(arguments: Sequence[str]) -> list[str]:
    """`--since -7d` as `--since=-7d`: argparse would take -7d for an option."""
    bound: list[str] = []
    for argument in arguments:
        if bound and bound[-1] in ("--since", "--until") and argument.startswith("-"):
            bound[-1] += f"={argument}"
        else:
            bound.append(argument)
    return bound


def moment(text: str) -> dt.datetime:
    """A moment, for argparse."""
    try:
        return parse_time(text, dt.datetime.now(dt.UTC))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def duration(text: str) -> float:
    """Seconds, for argparse."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1")
    return number


def positive_or_auto(text: str) -> int | None:
    """A whole number from 1, or None for `auto`, for argparse."""
    return None if text == "auto" else positive(text)


def names(text: str) -> tuple[str, ...]:
    """Names with commas between them, for argparse."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
