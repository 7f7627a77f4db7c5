"""Loading an experiment checks all of it. The experiments of the suite ask the intended questions."""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments import literature
from sr_core.config import KERNELS, DataConfig, EvaluationConfig, ModelConfig, TrainConfig
from sr_core.errors import ConfigError, SuiteError
from study.question.budget import MIN_STEPS_AT_A_RUNG, Counts
from study.question.config import TrialConfig, differences, short_digest
from study.question.experiment import Experiment, available, load_experiment
from study.question.space import Choice, Float, Grid, Int, Together
from study.run import main

BASE = TrialConfig(
    train=TrainConfig(budget_patches=1_920, batch_size=16), evaluation=EvaluationConfig(every_patches=480)
)
PAIRS = Together("train.batch_size", "train.learning_rate")


def experiment(**values: Any) -> Experiment:
    given: dict[str, Any] = {
        "question": "Which loss?",
        "base": BASE,
        "nuisance": {"train.loss": Choice("l1", "l2")},
        "rungs": (960,),
    }
    return Experiment(**given | values)


def test_one_that_says_nothing_of_it_has_its_winner_and_references_judged_with_three_seeds() -> None:
    assert (experiment().finalists, experiment().replicates) == (1, 3)


# Patch counts


def test_every_batch_size_is_known_wherever_it_stands() -> None:
    found = experiment(
        nuisance={PAIRS: [(8, 1e-3), (24, 1e-3)]}, references={"authors": BASE.with_values({"train.batch_size": 32})}
    )
    assert found.batch_sizes == (8, 16, 24, 32)


def test_every_training_kernel_is_known_wherever_it_stands() -> None:
    found = experiment(
        nuisance={"data.train_kernel": Choice("nearest", "cv2_area")},
        references={"blog": BASE.with_values({"data.train_kernel": "pillow_bicubic"})},
    )
    assert found.train_kernels == ("cv2_area", "matlab_bicubic", "nearest", "pillow_bicubic")


def test_counts_that_do_not_fit_are_told_at_once_with_counts_that_would() -> None:
    with pytest.raises(ConfigError) as refusal:
        experiment(
            base=BASE.with_values({"train.budget_patches": 320, "evaluation.every_patches": 80}),
            nuisance={PAIRS: [(8, 1e-3), (32, 1e-3)]},
            rungs=(160,),
        )
    assert str(refusal.value) == (
        "evaluation.every_patches is 80 patches: expected a multiple of 32, the least common multiple of every "
        "train.batch_size (8, 16, 32); the first rung is 160 patches: expected at least 960 (1/9 of the budget and "
        "30 steps of the largest batch, 32, references included); the nearest counts that fit are "
        "train.budget_patches=1056, evaluation.every_patches=96, rungs=(960,); without pruning, use "
        'scheduler="none", rungs=(), '
        "train.budget_patches=384, evaluation.every_patches=96"
    )


def test_what_it_says_would_do_does() -> None:
    nuisance = {PAIRS: [(8, 1e-3), (24, 1e-3)]}
    for budget in (1, 7, 1_000, 1_920, 50_000):
        for every in (1, 100, 480):
            for rungs in ((), (1,), (960, 10), (3_000, 5_000)):
                near = Counts(budget, every, (8, 16, 24), rungs, bool(rungs)).nearest()
                near.check()
                assert (near.budget >= budget, near.every >= every) == (True, True)
                assert len(near.rungs) > 0 or not rungs
                counts = {"train.budget_patches": near.budget, "evaluation.every_patches": near.every}
                scheduler = "successive_halving" if rungs else "none"
                experiment(base=BASE.with_values(counts), nuisance=nuisance, rungs=near.rungs, scheduler=scheduler)


@pytest.mark.parametrize("batch", [7, 64])
def test_a_batch_that_does_not_divide_the_validations_is_refused_at_load(batch: int) -> None:
    unit = math.lcm(16, batch)
    with pytest.raises(
        ConfigError,
        match=rf"^evaluation\.every_patches is 480 patches: expected a multiple of {unit}, the least common",
    ):
        experiment(nuisance={PAIRS: [(16, 1e-3), (batch, 1e-3)]})


def test_a_rung_that_some_batch_passes_by_is_refused_with_the_least_common_multiple() -> None:
    with pytest.raises(
        ConfigError,
        match=r"rung 1 is 1000 patches: expected a multiple of 96, .* every train.batch_size \(16, 24, 32\)",
    ):
        experiment(nuisance={PAIRS: [(24, 1e-3), (32, 1e-3)]}, rungs=(1_000,))


@pytest.mark.parametrize("rungs", [(720,), (960, 960), (1_440, 960), (1_920,), (2_400,), (0,), (-480, 960)])
def test_rungs_ascend_below_the_budget_at_validations(rungs: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"rungs must ascend, be multiples of evaluation\.every_patches"):
        experiment(rungs=rungs)


def test_a_first_rung_before_thirty_steps_of_the_largest_batch_is_refused() -> None:
    experiment(rungs=(480, 960))
    with pytest.raises(ConfigError, match=r"first rung is 480 patches: expected at least 960 .* largest batch, 32"):
        experiment(rungs=(480, 960), nuisance={PAIRS: [(16, 1e-3), (32, 1e-3)]})


def test_a_first_rung_before_a_ninth_of_the_budget_is_refused() -> None:
    base = BASE.with_values({"train.budget_patches": 4_800})
    with pytest.raises(ConfigError, match=r"first rung is 480 patches: expected at least 534 \(1/9 of the budget"):
        experiment(base=base, rungs=(480,))
    experiment(base=base, rungs=(960,))


def test_halving_without_a_rung_is_refused_and_no_pruning_needs_none() -> None:
    with pytest.raises(ConfigError, match="needs at least one rung"):
        experiment(rungs=())
    assert experiment(rungs=(), scheduler="none").rungs == ()


@pytest.mark.parametrize("batch", [Int(8, 16), Float(8, 16)])
def test_a_batch_size_that_is_an_interval_is_refused(batch: Any) -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size"):
        experiment(nuisance={"train.batch_size": batch})


# What makes trials comparable


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("train.budget_patches", (960, 1_920)),
        ("data.scale", (2, 3)),
        ("evaluation.every_patches", (480, 960)),
        ("evaluation.kernel", ("matlab_bicubic", "nearest")),
        ("evaluation.protocol", ("canonical", "blog")),
        ("evaluation.crops", (4, 6)),
    ],
)
@pytest.mark.parametrize("role", ["scientific", "nuisance"])
def test_what_all_trials_share_cannot_be_searched(name: str, values: tuple[Any, ...], role: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be the same in every trial"):
        experiment(**{role: {name: Choice(*values)}})


@pytest.mark.parametrize(
    ("name", "value"),
    [("train.budget_patches", 960), ("data.scale", 4), ("evaluation.crops", 3), ("evaluation.kernel", "nearest")],
)
def test_a_reference_that_is_not_comparable_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"reference 'odd': {name} must equal the base config's .* got {value!r}"):
        experiment(references={"odd": BASE.with_values({name: value})})


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"sampler": "magic"}, "sampler must be one of tpe, gp, random, qmc, grid, replay, got 'magic'"),
        (
            {"sampler": "grid", "nuisance": {"model.temperature": Float(0.1, 1.0)}},
            'sampler "grid" needs listed values or whole numbers',
        ),
        ({"scheduler": "median"}, "scheduler must be one of successive_halving, asha, none, replay, got 'median'"),
        ({"reduction_factor": 1.0}, r"reduction_factor must be > 1, got 1\.0"),
        ({"reduction_factor": math.nan}, "reduction_factor must be > 1, got nan"),
    ],
)
def test_an_unknown_way_to_search_is_refused(values: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        experiment(**values)


# The question's description


@pytest.mark.parametrize(
    "values",
    [
        {"base": BASE.with_values({"model.n_blocks": 3})},
        {"nuisance": {"train.loss": Choice("l1", "charbonnier")}},
        {"nuisance": {}, "scientific": {"train.loss": Choice("l1", "l2")}},
        {"references": {"authors": BASE}},
        {"sampler": "random"},
        {"scheduler": "none"},
        {"rungs": (960, 1_440)},
        {"reduction_factor": 2.0},
        {"benchmarks": ("Set5",)},
    ],
    ids=lambda values: next(iter(values)),
)
def test_everything_that_the_answer_depends_on_is_part_of_the_description(values: dict[str, Any]) -> None:
    assert short_digest(experiment(**values).describe()) != short_digest(experiment().describe())


def test_words_and_seed_are_no_part_of_the_description() -> None:
    other = experiment(question="Another wording?", base=BASE.with_values({"seed": 9}))
    assert other.describe() == experiment().describe()


# Loading


def test_an_unknown_name_lists_the_experiments_that_exist() -> None:
    assert {"a2n_x2", "a2n_x4", "quickstart"} <= set(available())
    with pytest.raises(SuiteError, match=rf"no experiment 'quickstar': expected {', '.join(available())}, or the path"):
        load_experiment("quickstar")


@pytest.mark.parametrize("name", ["literature", "__init__", "../study/space", ""])
def test_a_module_that_asks_no_question_is_no_experiment(name: str) -> None:
    with pytest.raises(SuiteError, match="no experiment"):
        load_experiment(name)


def test_a_file_of_one_s_own_is_named_after_it(tiny_experiment_file: Path) -> None:
    name, loaded = load_experiment(str(tiny_experiment_file))
    assert name == "tiny"
    assert loaded.space.size == 324


def test_a_file_that_was_changed_is_read_anew(tiny_experiment_file: Path) -> None:
    _, before = load_experiment(str(tiny_experiment_file))
    content = tiny_experiment_file.read_text().replace("Choice(1, 255)", "Choice(255, 1)")
    tiny_experiment_file.write_text(content + "# and a comment\n")
    _, after = load_experiment(str(tiny_experiment_file))
    assert before.describe() != after.describe()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("def broken(:\n", "experiment .*mine.py: SyntaxError"),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = 1\nraise RuntimeError('no luck')\n", "experiment .*mine.py, line 2: RuntimeError: no luck"),
        (
            "from sr_core.config import TrainConfig\nTrainConfig(batchsize=16)\n",
            r"mine\.py, line 2: TrainConfig has no 'batchsize'; did you mean batch_size",
        ),
        (
            "from sr_core.config import TrainConfig\nTrainConfig(temperature=16)\n",
            "mine.py, line 2: TrainConfig has no 'temperature'; it belongs to ModelConfig",
        ),
        (
            "from dataclasses import replace\n"
            "from study.question.config import TrialConfig\nreplace(TrialConfig(), zzz=1)\n",
            "mine.py, line 3: TrialConfig has no 'zzz'; expected some of model, data, train, evaluation, seed",
        ),
        ("dict(1, 2)\n", "mine.py, line 1: TypeError: dict expected"),
        ("EXPERIMENT = 1 / 0\n", "ZeroDivisionError"),
        ("", r"experiment .*mine.py: expected a module-level EXPERIMENT = Experiment\(…\)"),
        ("EXPERIMENT = {'question': 'Why?'}\n", "expected a module-level EXPERIMENT"),
        (
            "from study.question.config import TrialConfig\n"
            "BASE = TrialConfig().with_values({'model.temperatur': 3})\n",
            r"^mine\.py: no hyperparameter 'model\.temperatur'; did you mean model\.temperature",
        ),
    ],
)
def test_a_file_that_fails_is_named_with_its_reason(tmp_path: Path, content: str, match: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(SuiteError, match=match):
        load_experiment(str(path))


def test_a_missing_file_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"experiment .*gone\.py: no such file"):
        load_experiment(str(tmp_path / "gone.py"))


def test_a_folder_named_like_a_file_is_no_experiment(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(SuiteError, match="no such file"):
        load_experiment(str(tmp_path / "folder.py"))


# Files next to an experiment


MINE = """from base import BASE
from study.question.experiment import Experiment
EXPERIMENT = Experiment(question=BASE.question, base=BASE.base, nuisance=BASE.nuisance, scheduler="none")
"""


@pytest.fixture
def with_neighbour(tmp_path: Path, tiny_experiment_file: Path) -> Callable[[str, str], Path]:
    """with_neighbour(folder, question): an experiment there that takes all from `base.py` in the same folder."""
    content = tiny_experiment_file.read_text("utf-8") + "\nBASE = EXPERIMENT\n"

    def make(folder: str, question: str) -> Path:
        (tmp_path / folder).mkdir()
        neighbour = content + f"\nobject.__setattr__(BASE, 'question', {question!r})\n"
        (tmp_path / folder / "base.py").write_text(neighbour, "utf-8")
        (tmp_path / folder / "mine.py").write_text(MINE, "utf-8")
        return tmp_path / folder / "mine.py"

    return make


def test_an_experiment_imports_its_neighbour_wherever_the_command_is_typed(
    tmp_path: Path, with_neighbour: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = with_neighbour("one", "One?"), with_neighbour("other", "Other?")
    (tmp_path / "base.py").write_text("raise RuntimeError('the wrong one')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # as python -m does it
    path, modules = list(sys.path), set(sys.modules)
    for file, question in ((one, "One?"), (other, "Other?"), (Path("one/mine.py"), "One?")):
        assert load_experiment(str(file))[1].question == question
    assert sys.path == path
    assert "base" not in set(sys.modules) - modules


def test_a_neighbour_does_not_take_the_place_of_an_installed_package(
    with_neighbour: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = with_neighbour("folder", "Mine?")
    for name in ("study", "torch", "experiments", "json", "yaml", "sr_core"):
        (file.parent / f"{name}.py").write_text("raise RuntimeError('the wrong one')\n")
    monkeypatch.delitem(sys.modules, "yaml", raising=False)
    imports = "import experiments.literature, json, sr_core, study.question.space, torch, yaml\n"
    file.write_text(imports + MINE, "utf-8")
    assert load_experiment(str(file))[1].question == "Mine?"


def test_folders_of_the_same_names_do_not_take_the_place_of_the_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("experiments", "study", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "quickstart.py").write_text("raise RuntimeError('the wrong one')\n")
    before = available()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "experiments"]:
        monkeypatch.delitem(sys.modules, name)
    assert available() == before
    assert load_experiment("quickstart")[1].question.startswith("Which loss")
    assert Path(str(sys.modules["experiments"].__file__)).parent == Path(__file__).parents[2] / "experiments"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (
            b"from .base import BASE\n",
            r"line 1: ImportError: .*import files in .* by their names, without a dot: from base import …",
        ),
        (b"import base2\n", r"No module named 'base2'; expected an installed package, or base2\.py in "),
        (b"import sys\nsys.exit(3)\n", r"line 2: it calls sys\.exit\(3\) while it is loaded; remove that call$"),
        ("x = 'Größe'\n".encode("latin-1"), r"save the file as UTF-8$"),
        (
            b"\x00\x01",
            r"experiment .*mine\.py: (SyntaxError|ValueError): source code (string )?cannot contain null bytes",
        ),
    ],
)
def test_a_file_that_fails_says_in_one_line_what_to_do(tmp_path: Path, content: bytes, match: str) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(content)
    with pytest.raises(SuiteError, match=match):
        load_experiment(str(path))


def test_what_is_no_python_file_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.ipynb").touch()
    (tmp_path / "mine.py").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(
        SuiteError, match=r"this is a notebook; export it \(jupyter nbconvert --to script mine\.ipynb\)"
    ):
        load_experiment("mine.ipynb")
    with pytest.raises(SuiteError, match=r"there is a file mine\.py here, add the suffix \.py"):
        load_experiment("mine")
    with pytest.raises(SuiteError, match=r"\./folder is a folder, name a \.py file in it"):
        load_experiment("./folder")


def test_a_file_whose_name_is_no_study_name_runs_under_another_name(
    tmp_path: Path, tiny_experiment_file: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tiny_experiment_file.rename(tmp_path / "größere Netze.py")
    flags = ["--experiment", str(file), "--root", str(tmp_path / "r"), "--data", str(image_folder), "--dry-run"]
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.endswith("to keep the file's name, name the study with --study-name NAME\n")
    assert main([*flags, "--study-name", "larger"]) == 0


# The experiments that come with the suite


@pytest.mark.parametrize("name", available())
def test_every_experiment_of_the_suite_loads(name: str) -> None:
    found, loaded = load_experiment(name)
    assert found == name
    assert loaded.question.endswith("?")
    for cell, _ in zip(loaded.space.cells(), range(1_000), strict=False):
        loaded.base.with_values(loaded.space.settings(cell))


SEARCHES = [name for name in available() if load_experiment(name)[1].space.dimensions]


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_of_the_suite_holds_both_recipes_of_the_literature(name: str) -> None:
    _, loaded = load_experiment(name)
    assert list(loaded.references) == ["authors", "blog"]
    for reference in loaded.references.values():
        for shared in ("n_feats", "upsampler_feats", "n_blocks"):
            assert getattr(reference.model, shared) == getattr(loaded.base.model, shared)
        assert reference.evaluation == loaded.base.evaluation
        assert reference.train.budget_patches == loaded.base.train.budget_patches
        assert reference.train.ema_horizon_patches == loaded.base.train.ema_horizon_patches
        assert reference.data.lr_patch_size == loaded.base.data.lr_patch_size


@pytest.mark.parametrize("name", ["claims_x2", "claims_x2_cpu", "kernels_x2", "kernels_x2_cpu"])
def test_settings_that_are_compared_differ_from_the_base_in_what_their_names_say(name: str) -> None:
    _, loaded = load_experiment(name)
    base = loaded.base.dotted()
    assert (base["train.loss"], base["data.train_kernel"], base["data.sampling"]) == ("l1", "matlab_bicubic", "images")
    assert (base["model.input_range"], base["model.temperature"]) == (255, 30.0)
    for setting, config in loaded.references.items():
        changed = {k: v for k, v in config.dotted().items() if v != base[k]}
        match setting.split():
            case ["range", limit, "t", t]:
                told = {"model.input_range": int(limit.strip(",")), "model.temperature": float(t)}
            case [batch, "at", rate]:
                told = {"train.batch_size": int(batch), "train.learning_rate": float(rate)}
            case ["pillow"]:
                told = {"data.train_kernel": "pillow_bicubic"}
            case ["sub-images"]:
                told = {"data.sampling": "subimages"}
            case [loss] if loss in ("l2", "charbonnier"):
                told = {"train.loss": loss}
            case [kernel]:
                told = {"data.train_kernel": kernel}
        assert changed == {k: v for k, v in told.items() if v != base[k]}


@pytest.mark.parametrize("name", ["claims_x2", "claims_x2_cpu"])
def test_every_setting_of_the_claims_answers_some_question(name: str) -> None:
    _, loaded = load_experiment(name)
    asked = {name for pairs in loaded.comparisons.values() for pair in pairs for name in pair}
    assert asked == {"base", *loaded.references}


def test_where_the_batch_is_doubled_the_rate_is_doubled_or_stays() -> None:
    settings = load_experiment("claims_x2_cpu")[1].references
    train = {name: config.train for name, config in settings.items() if " at " in name}
    together = [(t.batch_size, t.learning_rate) for t in train.values() if t.learning_rate == t.batch_size / 32_000]
    assert sorted(together) == [(8, 2.5e-4), (16, 5e-4), (32, 1e-3)]
    assert sorted(t.batch_size for t in train.values() if t.learning_rate == 5e-4) == [8, 16, 32]


def test_the_searches_on_small_images_hold_sub_images_that_these_have() -> None:
    for name in ("a2n_x2_small_pictures", "a2n_x2_cpu"):
        _, loaded = load_experiment(name)
        for config in (loaded.base, *loaded.references.values()):
            assert (config.data.subimage_window, config.data.subimage_step) == (192, 80)  # BSD's shorter side is 321


def test_the_recipes_are_the_published_ones_whatever_the_base() -> None:
    odd = TrialConfig(
        model=ModelConfig(temperature=3.0, reduction=2, input_range=1),
        data=DataConfig(sampling="pixels", augmentation="none", train_kernel="nearest"),
        train=TrainConfig(loss="l2", loss_reduction="sum", adam_beta1=0.5, adam_eps=1.0, schedule="constant"),
    )
    authors, blog = literature.authors(odd), literature.blog(odd)
    common = {
        "model.temperature": 30.0,
        "model.reduction": 4,
        "data.augmentation": "dihedral",
        "train.batch_size": 32,
        "train.learning_rate": 5e-4,
        "train.adam_beta1": 0.9,
        "train.adam_beta2": 0.999,
        "train.adam_eps": 1e-8,
    }
    for recipe, own in (
        (
            authors,
            {
                "model.input_range": 255,
                "data.sampling": "images",
                "data.train_kernel": "matlab_bicubic",
                "train.loss": "l1",
                "train.loss_reduction": "mean",
                "train.schedule": "step",
                "train.step_interval": 0.1,
                "train.step_factor": 0.5,
            },
        ),
        (
            blog,
            {
                "model.input_range": 1,
                "data.sampling": "subimages",
                "data.train_kernel": "pillow_bicubic",
                "train.loss": "charbonnier",
                "train.loss_reduction": "sum",
                "train.schedule": "constant",
                "train.charbonnier_eps": 1e-6,
            },
        ),
    ):
        assert {name: recipe.dotted()[name] for name in common | own} == common | own
        assert set(differences(odd, recipe)) <= set(common | own)


@pytest.fixture
def quickstart() -> Experiment:
    return load_experiment("quickstart")[1]


def listed(experiment: Experiment, label: str) -> tuple[Any, ...]:
    (found,) = [d.listed for d in experiment.space.dimensions if d.label == label]
    assert found is not None
    return found


def test_quickstart_sweeps_what_newcomers_were_promised(quickstart: Experiment) -> None:
    assert {d.label for d in quickstart.space.dimensions} == {
        "train.loss",
        "train.batch_size+train.learning_rate",
        "model.temperature",
        "model.input_range",
        "model.reduction",
        "data.train_kernel",
    }
    assert {d.role for d in quickstart.space.dimensions} == {"nuisance"}
    assert len(listed(quickstart, "train.loss")) >= 2
    assert listed(quickstart, "model.temperature") == (0.1, 0.3, 1, 3, 10, 30, 100)
    assert set(listed(quickstart, "model.input_range")) == {1, 255}
    assert listed(quickstart, "model.reduction") == (2, 4, 8, 10)
    assert len(set(listed(quickstart, "data.train_kernel")) & set(KERNELS)) >= 5


def test_quickstart_tries_at_least_six_pairs_the_blog_s_and_large_rates_among_them(quickstart: Experiment) -> None:
    pairs = listed(quickstart, "train.batch_size+train.learning_rate")
    assert len(pairs) >= 6
    assert {(16, 1e-4), (32, 5e-4)} <= set(pairs)
    assert sum(rate >= 1e-3 for _, rate in pairs) >= 3
    assert len({batch for batch, _ in pairs}) >= 3


def test_quickstart_s_reductions_give_four_different_hidden_widths(quickstart: Experiment) -> None:
    widths = [quickstart.base.model.n_feats // reduction for reduction in listed(quickstart, "model.reduction")]
    assert widths == [12, 6, 3, 2]


def test_quickstart_s_size_and_budget_fit_ten_minutes(quickstart: Experiment) -> None:
    base = quickstart.base
    assert (base.model.n_feats, base.model.n_blocks, base.data.lr_patch_size) == (24, 2, 24)
    assert (base.train.budget_patches, base.evaluation.every_patches, quickstart.rungs) == (1_920, 480, (960,))
    assert base.evaluation.crops >= 6
    assert base.evaluation.lr_crop_size == 96


def test_quickstart_prunes_nothing_before_thirty_steps_and_two_validations(quickstart: Experiment) -> None:
    assert quickstart.rungs[0] >= MIN_STEPS_AT_A_RUNG * max(quickstart.batch_sizes)
    assert quickstart.rungs[0] >= 2 * quickstart.base.evaluation.every_patches


def test_quickstart_has_more_configurations_than_a_study_tries(quickstart: Experiment) -> None:
    assert quickstart.space.size is not None
    assert quickstart.space.size > 500


@pytest.mark.parametrize("name", ["a2n_x2", "a2n_x4"])
def test_full_size_questions_train_the_published_network_on_published_patches(name: str) -> None:
    _, loaded = load_experiment(name)
    assert loaded.base.model == ModelConfig()
    assert loaded.base.data.lr_patch_size == 64
    assert loaded.base.data.scale == int(name[-1])


def test_an_unsearched_experiment_is_legal() -> None:
    assert experiment(nuisance={}).space.size == 1


def test_a_grid_of_real_and_whole_values_loads() -> None:
    assert experiment(nuisance={"model.temperature": Grid(0.1, 1, 10)}).space.size == 3


@pytest.mark.parametrize("name", ["two\nlines", "", " ", "bell\a", "caf\udce9"])
def test_a_reference_s_name_is_one_printable_line(name: str) -> None:
    with pytest.raises(ConfigError, match="printed on one line"):
        experiment(references={name: BASE})
