"""Errors of models, bundles and repositories.

Each names what is wrong and the remedy; `exit_code` is the exit code of a command that it ends.
"""

from typing import ClassVar


class ModelError(Exception):
    """A fault of a model on disk. The message names the place, what is allowed and the remedy."""

    exit_code: ClassVar[int] = 1


class BundleError(ModelError):
    """A bundle must not be used: a file is missing or altered, or its images differ."""

    exit_code: ClassVar[int] = 4


class RepositoryError(ModelError):
    """The repository can't do what was asked."""


class NotInRepositoryError(RepositoryError):
    """The repository has no such model or version."""

    exit_code: ClassVar[int] = 3
