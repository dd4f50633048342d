"""The one tree of errors and warnings. Which exit status each becomes is said here and nowhere else."""

from __future__ import annotations


class NetsensError(Exception):
    """Root of everything that netsens raises on purpose; the message says what went wrong, where, and what to do."""

    exit_status = 1


class UsageError(NetsensError):
    """The question cannot be asked so: options that contradict each other, a target that does not fit."""

    exit_status = 2


class InputError(NetsensError):
    """An input file or array cannot be used: missing, truncated, of the wrong shape or dtype."""

    exit_status = 2


class OutputError(NetsensError):
    """A result cannot be written: no such folder, no permission, disk full."""

    exit_status = 2


class ModelError(NetsensError):
    """The model itself cannot be read or is not valid ONNX."""

    exit_status = 2


class NotFoundError(UsageError):
    """No layer, parameter or input has that name, or several have."""


class NoPathError(UsageError):
    """Nothing differentiable leads from `wrt` to `of`; the message names the operator that cut the path."""


class UnsupportedError(NetsensError):
    """netsens has no derivative for this yet, or none exists; the message says which operator and why."""

    exit_status = 2


class RuleError(NetsensError):
    """A derivative rule emitted something it may not: a bug in netsens, not in the model."""


class RunError(NetsensError):
    """onnxruntime could not build or run the graph."""


class ToleranceError(NetsensError):
    """A check or a limit that the user set was not met."""

    exit_status = 4


class NetsensWarning(UserWarning):
    """Something that the user should know, though the result stands."""
