# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""What is said when something cannot be done; the command prints it as one line."""

from __future__ import annotations


class JobError(Exception):
    """A job cannot go on; the message names the object and the way out."""


class Gone(JobError):
    """An object that was listed is not there any more."""


class Busy(JobError):
    """Another run of the job is under way."""
