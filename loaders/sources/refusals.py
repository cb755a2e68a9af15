"""What an API refuses, in the words that the engine goes by."""

from __future__ import annotations

from loaders.errors import ForeignAnswer, SourceError, TransientSourceError


class NotFound(SourceError):
    """404: what was asked for is not there (any more)."""


class RequestRefused(SourceError):
    """What is asked for is not given, whoever asks: one object, or 400 and the like.

    `parameter` is at fault, where the API names one.
    """

    def __init__(self, message: str, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class KeyRefused(SourceError):
    """401: the credentials are not accepted."""


class PermissionDenied(SourceError):
    """403: the credentials may not read this kind of object."""


OF_ONE_OBJECT = (TransientSourceError, RequestRefused)
"""Failures that may be those of the object asked for."""
OF_ONE_TYPE = (PermissionDenied, *OF_ONE_OBJECT)
"""Failures of a type of objects, which keep none of the others waiting."""


def foreign_answer(source_system: str, method: str) -> ForeignAnswer:
    """The error for what answers in the place of the API."""
    return ForeignAnswer(
        f"{source_system}: {method} answered something else than the API's JSON (a proxy or sign-in"
        " page?); see api_base_url, or run again later"
    )


def not_advancing(source_system: str, what: str) -> TransientSourceError:
    """The error for a list that says it goes on and comes back to where it was."""
    return TransientSourceError(
        f"{source_system}: the list of {what} does not advance; run again later"
    )


def another_object(source_system: str, object_type: str) -> TransientSourceError:
    """The error for an answer about another object than was asked for."""
    return TransientSourceError(
        f"{source_system}: {object_type}: the answer is about another object than was asked for;"
        " run again later"
    )
