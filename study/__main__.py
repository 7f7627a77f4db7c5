"""Start a study command by its short name: `sr-study run …` is `python -m study.run …`."""

import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "run": "search for the best configuration, or resume the search",
    "status": "show where a study stands",
    "reproduce": "train a recorded trial again and compare every number",
    "train": "train a chosen configuration on a longer budget",
    "branch": "copy a study to a new name",
    "simulate": "replay recorded learning curves through samplers and schedulers",
    "report": "write a study as one HTML page",
    "ui": "open MLflow's UI on a study's store",
    "sync": "bring MLflow and the Optuna view up to date",
}
"""Each command's short name and what it does."""

_PACKAGES = {"report": "study.report.__main__"}
"""Commands that are packages, by the module that holds their `main`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names and return its exit status.

    The status is 0 after --help, and 2 if no command or an unknown one is named.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        named = repr(arguments[0]) if arguments else "nothing"
        print(f"error: expected one of {', '.join(COMMANDS)}, got {named}; see sr-study --help", file=sys.stderr)
        return 2

    name = arguments[0]
    command = import_module(_PACKAGES.get(name, f"study.{name}"))
    whole = sys.argv
    sys.argv = [f"study.{name}", *arguments[1:]]  # a command repeats its arguments in the command to type next
    try:
        status: int = command.main(arguments[1:])
    finally:
        sys.argv = whole
    return status


def help_text() -> str:
    """Return the usage line and one line for each command."""
    lines = [f"  {name:<11}{purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join(["usage: sr-study COMMAND …", "", *lines, "", "sr-study COMMAND --help shows its flags"])


if __name__ == "__main__":
    sys.exit(main())
