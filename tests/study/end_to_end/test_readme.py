"""The README's commands do what its table says: each one runs, on a small study."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import skimage
import skimage.data
from PIL import Image

pytestmark = pytest.mark.slow

README = Path(__file__).parents[3] / "README.md"
CHECKOUT = README.parent

FLAGS = {
    "study.run": "--experiment {experiment} --data {data} --root {root} --trials 7 --tracking-uri none --storage none",
    "study.status": "--root {root}",
    "study.reproduce": "--root {root} --data {data}",
    "study.simulate": "--root {root} --experiment {experiment} --studies 2 --trials 4 --samplers random",
    "study.branch": "--root {root}",
    "study.train": "--root {root} --data {data} --tracking-uri none",
    "study.report": "--root {root} --data {data} --tracking-uri none",
    "study.ui": "--help",
    "study.sync": "--root {root} --storage none --publish {folder}/records",
    "sr_core.download": "--help",
    "sr_core.prepare": "",
    "sr_core.evaluate": "--weights bicubic --benchmark {data}/valid --scale 2",
    "sr_core.upscale": "--weights {weights} {folder}/photo.png --out {folder}/enlarged",
}
"""What each command of the table is given here.

study.ui serves until it is ended, and sr_core.download needs a network. Other tests run these two.
"""
VALUES = {"N": "480", "DIR": "{data}", "FILE": "{folder}/store.h5", "NEW": "branched"}
"""What stands for the words in capitals of the table."""
EXPECTED = {
    "study.run": "study.reproduce best",
    "study.status": "7 of 7 trials counted",
    "study.reproduce": "verdict: bit-identical",
    "study.branch": "branched",
    "study.report": "report.html",
    "sr_core.evaluate": "mean",
}
"""A part of what some of them print."""


def commands_of_the_table() -> list[str]:
    """Return the first column of the table of commands."""
    text = README.read_text("utf-8")
    table = text[text.index("| type | to |") :].partition("\n\n")[0]
    return re.findall(r"^\| `python -m ([^`]+)` \|", table, re.M)


def test_every_command_of_the_readme_runs(commands: Any, tiny: Any, tmp_path: Path) -> None:
    Image.fromarray(skimage.data.chelsea()[:60, :80]).save(tmp_path / "photo.png")
    places = {
        "experiment": tiny.experiment,
        "data": tiny.data,
        "root": tmp_path / "root",
        "folder": tmp_path,
        "weights": CHECKOUT / "experiments/released/a2n_small_x2/weights.safetensors",
    }

    listed = commands_of_the_table()
    assert [line.split()[0] for line in listed] == list(FLAGS)

    for line in sorted(listed, key=lambda line: line.startswith("study.branch")):  # then one root holds two studies
        module, *words = shlex.split(line)
        words = [VALUES.get(word, word) for word in words]
        arguments = [*words, *FLAGS[module].split()] if FLAGS[module] != "--help" else ["--help"]
        ended = commands.run(module, *(word.format(**places) for word in arguments), cwd=tmp_path)
        assert ended.status == 0, (line, ended.err)
        assert EXPECTED.get(module, "") in ended.out, line

    assert (tmp_path / "root/tiny/report/report.html").is_file()
    assert (tmp_path / "records/tiny/journal.jsonl.gz").is_file()
    assert (tmp_path / "store.h5").is_file()
    assert (tmp_path / "enlarged/photo_x2.png").is_file()


def test_the_readme_s_example_enlarges_the_cat(commands: Any, tmp_path: Path) -> None:
    """Run the one command of the README that needs no study, with its own weights and image."""
    text = README.read_text("utf-8")
    (line,) = re.findall(r"^python -m (sr_core\.upscale .*chelsea\.png.*)$", text, re.M)
    source = Path(skimage.__path__[0]) / "data" / "chelsea.png"
    line = re.sub(r'"\$\(.*\)/data/chelsea\.png"', shlex.quote(str(source)), line)
    line = line.replace("experiments/released", str(CHECKOUT / "experiments/released"))

    module, *words = shlex.split(line)
    ended = commands.run(module, *words, cwd=tmp_path)

    assert (ended.status, ended.err) == (0, "")
    with Image.open(tmp_path / "enlarged" / "chelsea_x2.png") as enlarged:
        assert enlarged.size == (902, 600)
