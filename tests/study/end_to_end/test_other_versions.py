"""A study that goes on with other libraries than those that it began with."""

from pathlib import Path
from typing import Any

import optuna

from study.record.events import Warned
from study.record.journal import read

OTHER_OPTUNA = """
from study.record import provenance
from study.search import optuna_private
found = provenance._version
provenance._version = lambda name: "5.9.0" if name == "optuna" else found(name)
del optuna_private.Tpe._compute_acquisition_func
"""


def test_a_resume_warns_of_another_optuna_and_of_an_override_that_it_ignores(
    commands: Any, tiny: Any, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    first = commands.run("study.run", *tiny.argv(root, trials=3))
    assert first.status == 0
    journal = root / "tiny" / "journal.jsonl"
    assert [event for event in read(journal) if isinstance(event, Warned)] == []
    then = commands.run("study.run", *tiny.argv(root, trials=4), first=OTHER_OPTUNA)
    assert then.status == 0
    versions, ignored = [event.message for event in read(journal) if isinstance(event, Warned)]
    assert versions == (
        f"proposals or bits may differ from the last session's: optuna {optuna.__version__} then, 5.9.0 now"
    )
    assert "ignores what this project adds to its sampler 'tpe'" in ignored
    for message in (versions, ignored):
        assert f"warning: {message}" in then.out + then.err
