"""Write the generated pages of docs/reference: `python docs/generate.py`, with `--check` to compare only.

Commands come from their argparse parsers. Hyperparameters, experiment fields and journal events come from the
annotations of their dataclasses and the docstrings under the fields.
"""

import argparse
import ast
import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, cast
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from study.question.config import SECTIONS, TrialConfig  # noqa: E402
from study.question.experiment import Experiment  # noqa: E402
from study.record import events  # noqa: E402
from study.record.folder import default_root  # noqa: E402

REFERENCE = ROOT / "docs" / "reference"
NOTE = "<!-- Written by docs/generate.py. Edit the code, then run `python docs/generate.py`. -->\n\n"

ORDER = ("study.run", "study.status", "study.reproduce", "study.train", "study.branch", "study.simulate")
ORDER += ("study.report", "study.ui", "study.sync")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python docs/generate.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page differs")
    args = parser.parse_args(argv)

    stale = [name for name, text in pages().items() if current(name) != text]
    for name in stale:
        if args.check:
            print(f"docs/reference/{name} is stale; run python docs/generate.py")
        else:
            (REFERENCE / name).write_text(pages()[name], encoding="utf-8")
            print(f"docs/reference/{name}")
    return 1 if args.check and stale else 0


def current(name: str) -> str:
    path = REFERENCE / name
    return path.read_text("utf-8") if path.is_file() else ""


def pages() -> dict[str, str]:
    """Return the text of every generated page by its file name in docs/reference."""
    return {
        "commands.md": commands_page(),
        "hyperparameters.md": hyperparameters_page(),
        "experiment.md": experiment_page(),
        "journal.md": journal_page(),
    }


# Commands


class _ParserBuiltError(BaseException):
    """Carries a command's parser out of its `main`."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of every command by the name that follows `python -m`."""
    parsers = {}
    for path in command_files():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        parser = parser_of(module)
        name = parser.prog.removeprefix("python -m ")
        if name != parser.prog:
            parsers[name] = parser

    known = [name for name in ORDER if name in parsers]
    others = sorted(set(parsers) - set(known), key=lambda name: (not name.startswith("study"), name))
    return {name: parsers[name] for name in (*known, *others)}


def command_files() -> Iterator[Path]:
    """Yield the modules that a user can start: those with a parser at the top of a package, and its __main__ files."""
    for package in ("study", "sr_core"):
        candidates = [*(ROOT / package).glob("*.py"), *(ROOT / package).glob("*/__main__.py")]
        for path in sorted(candidates):
            source = path.read_text("utf-8")
            if re.search(r"^def main\(", source, re.M) and re.search(r"\bParser\(", source):
                yield path


def parser_of(module: str) -> argparse.ArgumentParser:
    """Return the parser that a module's `main` builds, without running the command."""

    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> NoReturn:
        raise _ParserBuiltError(parser)

    with patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            importlib.import_module(module).main([])
        except _ParserBuiltError as built:
            return built.parser
    raise AssertionError(f"{module}.main parses no arguments")


def commands_page() -> str:
    parts = [
        "# Commands\n",
        "Every command is `python -m NAME`. `sr-study run` is the same as `python -m study.run`, and so on for each "
        "command of `study`. [Exit codes](exit-codes.md) are the same for all.\n",
    ]
    for name, parser in commands().items():
        parts += [f"## {name}\n", f"{as_sentence(parser.description or '').rstrip('.')}.\n", usage(parser)]
        rows = [(flag(action), as_sentence(help_of(parser, action))) for action in shown_actions(parser)]
        parts.append(table(("argument", "meaning"), rows))
    return NOTE + "\n".join(parts)


def usage(parser: argparse.ArgumentParser) -> str:
    """Return the usage line with the required arguments alone; the table has the others."""
    words = [parser.prog]
    for action in shown_actions(parser):
        if action.option_strings and action.required:
            words.append(f"{action.option_strings[0]} {value_name(action)}")
    words += ["[flags]"]
    words += [value_name(a) + (" …" if a.nargs == "+" else "") for a in shown_actions(parser) if not a.option_strings]
    return "```text\n" + " ".join(words) + "\n```\n"


def shown_actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [a for a in parser._actions if "--help" not in a.option_strings and a.help != argparse.SUPPRESS]


def flag(action: argparse.Action) -> str:
    if not action.option_strings:
        return f"`{value_name(action)}`"
    if action.nargs == 0:
        return f"`{action.option_strings[0]}`"
    more = " …" if action.nargs == "+" else ""
    return f"`{action.option_strings[0]} {value_name(action)}{more}`"


def value_name(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper()


def help_of(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = parser._get_formatter()._expand_help(action) if action.help else ""
    return text.replace(str(default_root()), "mlruns in the checkout")


# Dataclasses


def field_docs(owner: type) -> dict[str, str]:
    """Return the string under each field of a dataclass by the field's name, its lines joined."""
    (definition,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(owner))).body
    docs = {}
    body = cast(ast.ClassDef, definition).body
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        text = following.value if isinstance(following, ast.Expr) else None
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            docs[node.target.id] = " ".join(text.value.split())
        else:
            docs[node.target.id] = ""
    return docs


def field_types(owner: type) -> dict[str, str]:
    """Return the annotation of each field as it is written in the source."""
    (definition,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(owner))).body
    body = cast(ast.ClassDef, definition).body
    return {n.target.id: ast.unparse(n.annotation) for n in body if isinstance(n, ast.AnnAssign) and is_name(n.target)}


def is_name(node: ast.expr) -> bool:
    return isinstance(node, ast.Name)


def hyperparameters() -> dict[str, tuple[str, str, str]]:
    """Return (type, default, meaning) of every hyperparameter by its dotted name."""
    rows = {}
    for section, owner in SECTIONS.items():
        docs = field_docs(owner)
        for field in dataclasses.fields(owner):
            values = legal_values(field.type)
            rows[f"{section}.{field.name}"] = (values, f"`{field.default!r}`", docs[field.name])
    docs = field_docs(TrialConfig)
    for field in dataclasses.fields(TrialConfig):
        if field.name not in SECTIONS:
            rows[field.name] = (legal_values(field.type), f"`{field.default!r}`", docs[field.name])
    return rows


def legal_values(annotation: Any) -> str:
    """Return the choices of a Literal, or else the name of the type."""
    choices = getattr(annotation, "__args__", ())
    if getattr(annotation, "__origin__", None) is not None:
        return ", ".join(f"`{value}`" for value in choices)
    return f"`{getattr(annotation, '__name__', annotation)}`"


def hyperparameters_page() -> str:
    parts = [
        "# Hyperparameters\n",
        "An experiment sets or searches these values by their dotted names. MLflow and Optuna show the same names. "
        "Every value is checked when it is set.\n",
    ]
    rows = hyperparameters()
    for section, owner in SECTIONS.items():
        own = [(f"`{name}`", *row) for name, row in rows.items() if name.startswith(f"{section}.")]
        parts += [f"## {section}\n", f"{' '.join(inspect.cleandoc(owner.__doc__ or '').split())}\n"]
        parts.append(table(("name", "type or values", "default", "meaning"), own))
    others = [(f"`{name}`", *row) for name, row in rows.items() if "." not in name]
    parts += ["## Of the whole trial\n", table(("name", "type or values", "default", "meaning"), others)]
    return NOTE + "\n".join(parts)


def experiment_page() -> str:
    docs = field_docs(Experiment)
    types = field_types(Experiment)
    rows = []
    for field in dataclasses.fields(Experiment):
        if field.init:
            rows.append((f"`{field.name}`", f"`{types[field.name]}`", default_of(field), docs[field.name]))
    parts = [
        "# The fields of an experiment\n",
        "An experiment file defines `EXPERIMENT = Experiment(…)`. The [tutorial](../guides/tutorial.md) shows one.\n",
        table(("field", "type", "default", "meaning"), rows),
        "## Ranges\n",
    ]
    from study.question import space

    for name in ("Float", "Int", "Grid", "Choice", "Together"):
        owner = getattr(space, name)
        first = inspect.cleandoc(owner.__doc__ or "").split("\n\n")[0]
        parts.append(f"- `{name}{inspect.signature(owner)}`".replace(" -> None", "") + f": {' '.join(first.split())}")
    return NOTE + "\n".join(parts) + "\n"


def default_of(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()!r}`"
    return "required"


def journal_events() -> list[type[events.Event]]:
    """Return the events that a journal can hold, in the order of their definition."""
    recorded = []
    for value in vars(events).values():
        is_event = isinstance(value, type) and issubclass(value, events.Event)
        if is_event and value in events._KINDS.values():
            recorded.append(value)
    return recorded


def journal_page() -> str:
    parts = [
        "# Journal events\n",
        f"Each line of `journal.jsonl` is one event as a JSON object. This is format {events.FORMAT}; journals of "
        "earlier formats are read too. [The journal](../concepts/journal.md) says how lines are written and checked. "
        "Every event has `event` (its kind), `time` (Unix time in seconds), and the line's number and checksum. "
        "The events of a trial also have `trial` (its number).\n",
    ]
    for kind in journal_events():
        docs, types = field_docs(kind), field_types(kind)
        text = inspect.cleandoc(kind.__doc__ or "")
        sentence = "" if text.startswith(f"{kind.__name__}(") else " ".join(text.split())
        parts.append(f"## {event_name(kind)}\n")
        if sentence:
            parts.append(f"{sentence}\n")
        parts.append(table(("field", "type", "meaning"), [(f"`{n}`", f"`{types[n]}`", docs[n]) for n in docs]))
    return NOTE + "\n".join(parts)


def event_name(kind: type[events.Event]) -> str:
    """Return the name that the journal stores for an event."""
    (name,) = [name for name, stored in events._KINDS.items() if stored is kind]
    return name


# Markdown


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [row_of(head), "|" + "---|" * len(head), *map(row_of, rows)]
    return "\n".join(lines) + "\n"


def row_of(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def as_sentence(text: str) -> str:
    """Return a help text that starts with a capital letter, unless it starts with code, a name or a flag."""
    text = " ".join(text.split())
    if re.match(r"[a-z]+( |$|,|;)", text):
        return text[0].upper() + text[1:]
    return text


if __name__ == "__main__":
    sys.exit(main())
