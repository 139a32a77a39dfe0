"""Errors a person can act on: each names the thing, its value, and what is accepted or the remedy."""


class MatineeError(Exception):
    """Base of every error Matinee raises on purpose.

    The CLI prints the message on one line and exits 2; the HTTP API answers a problem document.
    """


class ConfigError(MatineeError, ValueError):
    """A setting is unknown, has the wrong type, or contradicts another."""


class InvalidInput(MatineeError, ValueError):
    """A value from outside (request, event, file, flag) is not accepted."""


class NotFound(MatineeError, LookupError):
    """A named thing (title, data set, model version, run) does not exist."""


class Forbidden(MatineeError, PermissionError):
    """The caller is known, and may not do this."""


class Unavailable(MatineeError, RuntimeError):
    """A part Matinee depends on (broker, store, cluster) does not answer now; a retry may succeed.

    Args:
        message: what is unavailable and where.
        retry_after_s: seconds after which a retry is sensible.
    """

    def __init__(self, message: str, *, retry_after_s: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StorageError(MatineeError, OSError):
    """The data home cannot be written: no space, no permission, or not a folder."""
