"""The errors that users can cause and mend. Each is shown as one clear line, without a traceback."""


class SuiteError(Exception):
    """The input or usage is wrong. The message says what was expected, what came, where, and what to do."""


class ConfigError(SuiteError, ValueError):
    """A hyperparameter, its value or a combination of values is not legal."""


class ImageError(SuiteError):
    """An image or a folder of images cannot be used."""


class DownloadError(SuiteError):
    """A file cannot be downloaded or unpacked, or differs from the published one."""


class StoreError(SuiteError):
    """A patch store is truncated, is not a patch store of this suite, or does not match its checksums."""


class CheckpointError(SuiteError):
    """Weights or a checkpoint do not fit what they are loaded into, or are damaged."""


class TakenOverError(CheckpointError):
    """Another process has taken over the checkpoint or study, so this process must end."""


class DivergedError(Exception):
    """A training loss or score is no longer finite. This ends the trial, not the study."""
