"""What can be wrong with a model, a bundle or a repository: one hierarchy, each with a remedy.

`exit_code` is what a command line ends with.
"""

from typing import ClassVar


class ModelError(Exception):
    """Any fault of a model on disk. Its text names what, where, what is allowed and the remedy."""

    exit_code: ClassVar[int] = 1


class BundleError(ModelError):
    """A bundle not to be used: a file is missing or altered, or its images don't reproduce."""

    exit_code: ClassVar[int] = 4


class RepositoryError(ModelError):
    """A repository that can't do what was asked."""


class NotInRepositoryError(RepositoryError):
    """The named model or version does not exist."""

    exit_code: ClassVar[int] = 3
