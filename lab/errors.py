# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""Errors with the form that the Proxmox VE API gives them."""

from __future__ import annotations


class ApiError(Exception):
    """An HTTP status with its text; the text becomes the reason phrase, one line of it."""

    def __init__(self, status: int, message: str, errors: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = errors


class ParameterError(ApiError):
    """400 with one text per parameter."""

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__(
            400, "Parameter verification failed.", {key: text + "\n" for key, text in errors.items()}
        )


def die(message: str) -> ApiError:
    """What the hypervisor's own code throws: status 500."""
    return ApiError(500, message)


class LabError(Exception):
    """A fault of this machine or of the operator's input, told in one line."""
