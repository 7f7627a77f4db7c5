"""What can be wrong with the input. Each of these is one clear line for the user, never a traceback."""


class SuiteError(Exception):
    """Bad input or usage: the message says what was expected, what came, where, and what to do."""


class ConfigError(SuiteError, ValueError):
    """A hyperparameter, its value or a combination of values is not legal."""


class ImageError(SuiteError):
    """An image or a folder of images cannot be used."""


class DownloadError(SuiteError):
    """A file cannot be fetched or unpacked, or is not the one that was published."""


class StoreError(SuiteError):
    """A patch store is truncated, foreign, or does not match its checksums."""


class CheckpointError(SuiteError):
    """Weights or a checkpoint do not fit what they are loaded into, or are damaged."""


class TakenOverError(CheckpointError):
    """A checkpoint or a study belongs to a later owner by now, so whoever finds that is the one that was replaced."""


class DivergedError(Exception):
    """A training loss or score stopped being finite; ends one trial, not the study."""
