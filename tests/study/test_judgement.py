"""The verdict of a reproduction and its exit status, from what differs."""

from dataclasses import replace

import pytest

from study.record.events import Finished, Validated
from study.reproduction.judgement import NO_MATCH, Circumstances, judge
from study.reproduction.retrain import TOLERANCES, ReproducedTrial

NOTHING = Circumstances((), (), ())
CODE = Circumstances((), ("code aaaa then, bbbb now: sr_core/seed.py",), ())
VERSION = Circumstances((), (), ("numpy 1.0.0 then, 2.0.0 now",))
TORCH = Circumstances(("torch 2.12.0 then, 2.13.0 here",), (), ())
PROCESSOR = Circumstances((), (), (), "processor an old one then, a new one here")

UNKNOWN = Circumstances((), (), (), unknown=("cudnn is not in the record, 91002 here",))


def point(patches: int, psnr: float, ssim: float = 0.9) -> Validated:
    return Validated(
        time=patches,
        trial=0,
        patches=patches,
        scores={"val/psnr": psnr, "val/ssim": ssim},
        loss=0.1,
        learning_rate=1e-3,
    )


def result(psnr: float, weights: str = "beef") -> Finished:
    scores = {"val/psnr": psnr, "val/ssim": 0.9}
    return Finished(
        time=9, trial=0, patches=40, scores=scores, per_image=(("a", psnr, 0.9),), weights=weights, seconds={}
    )


def compared(*gaps: float, weights: str = "beef") -> ReproducedTrial:
    """Two curves of 30 dB whose validations differ by so much, and their results."""
    points = [(point(20 * n, 30.0), point(20 * n, 30.0 + gap)) for n, gap in enumerate(gaps, start=1)]
    return ReproducedTrial([*points], (result(30.0), result(30.0 + gaps[-1], weights)))


@pytest.mark.parametrize("around", [NOTHING, CODE, VERSION, PROCESSOR], ids=["nothing", "code", "version", "processor"])
def test_equal_numbers_are_bit_identical_whatever_code_versions_and_processor(around: Circumstances) -> None:
    found = judge(compared(0.0, 0.0), around, promises_bits=True, strict=False)
    assert found.status == 0
    assert found.lines[-1].startswith("verdict: bit-identical, every point of the curve and the weights")


@pytest.mark.parametrize(
    ("around", "status"), [(NOTHING, 0), (PROCESSOR, 0), (CODE, NO_MATCH), (VERSION, NO_MATCH), (TORCH, NO_MATCH)]
)
def test_strict_takes_other_code_versions_and_settings_for_a_difference(around: Circumstances, status: int) -> None:
    found = judge(compared(0.0, 0.0), around, promises_bits=True, strict=True)
    assert found.status == status
    if status:
        assert found.lines[:-1] == tuple(f"differs: {line}" for line in around.lines)
        assert found.lines[-1] == "verdict: different (--strict), though every number is equal to the last bit"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("around", [NOTHING, CODE, VERSION], ids=["nothing", "code", "version"])
def test_where_bits_are_promised_one_that_differs_is_a_difference(around: Circumstances, strict: bool) -> None:
    found = judge(compared(0.0, 4e-15), around, promises_bits=True, strict=strict)
    assert (found.status, found.lines[-1]) == (NO_MATCH, "verdict: different")
    assert found.lines[0].startswith("differs: after 40 patches: val/psnr 30.0 then, 30.000000000000004 now")
    cause = around.lines[0] if around.lines else "images, code, versions and settings are those of the record"
    assert f"likely cause: {cause}" in found.lines[-2]


@pytest.mark.parametrize("around", [TORCH, PROCESSOR], ids=["torch", "processor"])
def test_what_other_rounding_makes_is_within_tolerance_where_bits_cannot_be_restored(around: Circumstances) -> None:
    found = judge(compared(0.001, 0.0005), around, promises_bits=True, strict=False)
    assert found.status == 0
    assert found.lines[0].startswith(
        "verdict: within tolerance: largest difference 0.001 dB of val/psnr after 20 patches"
    )
    assert (around.settings or (around.processor,))[0] in found.lines[0]
    assert judge(compared(0.001), around, promises_bits=True, strict=True).status == NO_MATCH


@pytest.mark.parametrize("changed", [CODE, VERSION], ids=["code", "version"])
def test_other_numbers_by_other_code_are_no_reproduction_though_other_rounding_might_explain_them(
    changed: Circumstances,
) -> None:
    around = replace(changed, processor=PROCESSOR.processor)
    found = judge(compared(0.001), around, promises_bits=True, strict=False)
    assert (found.status, found.lines[-1]) == (NO_MATCH, "verdict: different")
    assert (
        f"likely cause: {changed.lines[0]}, or {PROCESSOR.processor}; retrain with the recorded code" in found.lines[-2]
    )


def test_equal_numbers_under_other_settings_are_never_called_bit_identical() -> None:
    found = judge(compared(0.0), TORCH, promises_bits=True, strict=False)
    assert found.status == 0
    assert found.lines[-1].startswith("verdict: within tolerance: every number is equal, but bits are not promised")


def test_kernels_that_add_in_any_order_promise_no_bits() -> None:
    assert judge(compared(0.001), NOTHING, promises_bits=False, strict=False).status == 0
    assert judge(compared(0.001), NOTHING, promises_bits=True, strict=False).status == NO_MATCH


@pytest.mark.parametrize("gap", [0.9, 1.1])
def test_the_tolerance_ends_where_it_says(gap: float) -> None:
    found = judge(compared(gap * TOLERANCES["val/psnr"]), TORCH, promises_bits=True, strict=False)
    assert found.status == (0 if gap < 1 else NO_MATCH)
    if gap > 1:
        assert (
            "settings that were not restored (torch 2.12.0 then, 2.13.0 here), or an altered record"
            in (found.lines[-2])
        )


def test_ssim_has_a_tolerance_of_its_own() -> None:
    then, off = point(20, 30.0), point(20, 30.0, ssim=0.9 + 2 * TOLERANCES["val/ssim"])
    assert judge(ReproducedTrial([(then, off)]), TORCH, promises_bits=True, strict=False).status == NO_MATCH


def test_a_second_training_that_failed_or_ended_early_is_a_difference_under_any_settings() -> None:
    failed = replace(compared(0.0), failure="diverged: the loss is nan")
    assert judge(failed, TORCH, promises_bits=True, strict=False).lines[0] == "differs: diverged: the loss is nan"
    early = ReproducedTrial([(point(20, 30.0), point(20, 30.0)), (point(40, 30.0), None)])
    found = judge(early, TORCH, promises_bits=True, strict=False)
    assert (found.status, found.lines[0]) == (NO_MATCH, "differs: no validation after 40 patches")


def test_of_a_curve_that_is_equal_the_result_is_compared_too() -> None:
    found = judge(compared(0.0, weights="dead"), NOTHING, promises_bits=True, strict=False)
    assert found.lines[0] == "differs: the curve is equal, but the final weights differ"


def test_a_setting_that_the_record_is_too_old_to_name_takes_nothing_from_equal_bits() -> None:
    for strict in (False, True):
        found = judge(compared(0.0, 0.0), UNKNOWN, promises_bits=True, strict=strict)
        assert (found.status, len(found.lines)) == (0, 1)
        assert found.lines[0].startswith("verdict: bit-identical, every point of the curve and the weights")


@pytest.mark.parametrize("code", [NOTHING, CODE, VERSION], ids=["the same code", "other code", "other versions"])
def test_under_a_setting_that_the_record_is_too_old_to_name_a_difference_is_judged_by_the_tolerance(
    code: Circumstances,
) -> None:
    around = replace(code, unknown=UNKNOWN.unknown)
    near = judge(compared(0.001), around, promises_bits=True, strict=False)
    assert near.status == 0
    assert near.lines[0].startswith("verdict: within tolerance: largest difference 0.001 dB of val/psnr")
    assert "bits are not promised here (cudnn is not in the record, 91002 here)" in near.lines[0]
    assert near.lines[0].endswith("; other code or versions are noted above") == bool(code.lines)

    far = judge(compared(1.1 * TOLERANCES["val/psnr"]), around, promises_bits=True, strict=False)
    assert (far.status, far.lines[-1]) == (NO_MATCH, "verdict: different")
    assert judge(compared(0.001), around, promises_bits=True, strict=True).status == NO_MATCH
