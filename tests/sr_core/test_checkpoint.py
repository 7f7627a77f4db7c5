"""Checkpoint files: complete or refused, never executed, and replaced atomically."""

import errno
import json
import os
import pickle
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import nn

from sr_core.config import TrainConfig
from sr_core.errors import CheckpointError, TakenOverError
from sr_core.process.durable import remove_parts, temporary_name, write_durably
from sr_core.training.checkpoint import (
    Mark,
    digest_of,
    load_checkpoint,
    put_fence,
    save_checkpoint,
    save_weights,
    weights_of,
)
from sr_core.training.runtime import resolve
from sr_core.training.step import Step, TrainState, start

NeedsName = Callable[[str], None]

TRAIN = TrainConfig(budget_patches=16, batch_size=2)
RUNTIME = resolve(threads=1)
MARK = Mark("00c0ffee00c0ffee", 3)


def fresh(width: int = 4) -> TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.PReLU(), nn.Conv2d(width, 3, 1))
    return start(model, TRAIN, RUNTIME)


def train(state: TrainState, steps: int) -> TrainState:
    step = Step(state, TRAIN, RUNTIME, noise)
    for _ in range(steps):
        step()
    return state


def noise(first: int, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    pixels = np.random.default_rng(first).integers(0, 256, (2, count, 3, 6, 6), dtype=np.uint8)
    return pixels[0], pixels[1]


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, TrainState]:
    state = train(fresh(), 3)
    save_checkpoint(tmp_path / "checkpoint.safetensors", state, MARK)
    return tmp_path / "checkpoint.safetensors", state


def everything(state: TrainState) -> dict[str, torch.Tensor]:
    """Everything that determines the rest of the training, by name."""
    tensors = {f"model/{k}": v for k, v in weights_of(state.model).items()}
    tensors |= {f"average/{k}": v for k, v in weights_of(state.average.model).items()}
    for name, parameter in state.model.named_parameters():
        tensors |= {f"adam/{key}/{name}": value for key, value in state.optimizer.state[parameter].items()}
    return tensors | {"loss": state.loss_sum, "counts": torch.tensor([state.loss_steps, state.patches])}


def test_loading_brings_back_every_bit_that_decides_what_comes_next(written: tuple[Path, TrainState]) -> None:
    path, state = written
    loaded = fresh()
    load_checkpoint(path, loaded, MARK)
    assert digest_of(everything(loaded)) == digest_of(everything(state))
    assert digest_of(everything(train(loaded, 4))) == digest_of(everything(train(state, 4)))


def test_the_optimiser_resumes_with_the_same_types(written: tuple[Path, TrainState]) -> None:
    path, state = written
    loaded = fresh()
    load_checkpoint(path, loaded, MARK)
    for one, other in zip(state.model.parameters(), loaded.model.parameters(), strict=True):
        before = state.optimizer.state[one]
        after = loaded.optimizer.state[other]
        assert {k: (v.dtype, v.shape, v.stride()) for k, v in before.items()} == {
            k: (v.dtype, v.shape, v.stride()) for k, v in after.items()
        }


def test_saving_twice_writes_the_same_bytes(written: tuple[Path, TrainState]) -> None:
    path, state = written
    before = path.read_bytes()
    save_checkpoint(path, state, MARK)
    assert path.read_bytes() == before


def test_a_later_owner_may_resume_from_a_checkpoint(written: tuple[Path, TrainState]) -> None:
    path, state = written
    later = fresh()
    load_checkpoint(path, later, Mark(MARK.config, MARK.epoch + 1))
    assert later.patches == state.patches > 0


# Refused checkpoints


def assert_refused(path: Path, match: str, mark: Mark = MARK, width: int = 4) -> None:
    with pytest.raises(CheckpointError, match=match) as caught:
        load_checkpoint(path, fresh(width), mark)
    assert str(path) in str(caught.value)


def test_a_checkpoint_truncated_anywhere_is_refused(written: tuple[Path, TrainState]) -> None:
    path, _ = written
    content = path.read_bytes()
    for length in {*range(0, len(content), 37), *range(20), len(content) - 1}:
        path.write_bytes(content[:length])
        assert_refused(path, "not a whole checkpoint .*; remove the file to start over")


def test_a_checkpoint_of_another_config_is_refused(written: tuple[Path, TrainState]) -> None:
    assert_refused(written[0], "belongs to config 00c0ffee00c0ffee, not to decaf", Mark("decaf", 3))


def test_a_checkpoint_of_a_later_owner_is_refused(written: tuple[Path, TrainState]) -> None:
    assert_refused(written[0], r"written by owner 3, newer than this one \(2\)", Mark(MARK.config, 2))


def test_a_checkpoint_of_a_later_owner_is_not_written_over(written: tuple[Path, TrainState]) -> None:
    path, state = written
    save_checkpoint(path, state, Mark(MARK.config, MARK.epoch + 1))
    before = path.read_bytes()
    with pytest.raises(TakenOverError, match="newer than this one"):
        save_checkpoint(path, state, MARK)
    assert path.read_bytes() == before
    path.write_bytes(before[:20])
    save_checkpoint(path, state, MARK)
    assert len(path.read_bytes()) > 20


def test_behind_the_fence_of_a_later_owner_no_checkpoint_is_written_even_if_there_is_none(
    written: tuple[Path, TrainState],
) -> None:
    path, state = written
    path.unlink()
    fence = path.with_name("epoch")
    mark = Mark(MARK.config, MARK.epoch, fence)
    save_checkpoint(path, state, mark)  # without a fence there cannot be another owner
    for epoch in (MARK.epoch - 1, MARK.epoch):
        put_fence(fence, epoch)
        save_checkpoint(path, state, mark)
    path.unlink()
    put_fence(fence, MARK.epoch + 1)
    with pytest.raises(TakenOverError, match=rf"owner {MARK.epoch + 1} is newer than this one \({MARK.epoch}\)"):
        save_checkpoint(path, state, mark)
    assert not path.exists()


def test_a_later_claim_among_the_owners_is_a_fence_too(written: tuple[Path, TrainState]) -> None:
    path, state = written
    path.unlink()
    owners = path.with_name("owners")
    owners.mkdir()
    mark = Mark(MARK.config, MARK.epoch, owners)
    for epoch in (1, MARK.epoch):
        (owners / str(epoch)).touch()
        save_checkpoint(path, state, mark)
    path.unlink()
    (owners / "10").touch()
    with pytest.raises(TakenOverError, match=rf"owner 10 is newer than this one \({MARK.epoch}\)"):
        save_checkpoint(path, state, mark)
    assert not path.exists()


def test_a_checkpoint_of_another_layout_is_refused(written: tuple[Path, TrainState]) -> None:
    path, _ = written
    path.write_bytes(save(load_file(path), metadata={"state": json.dumps({"layout": 99})}))
    assert_refused(path, "expected checkpoint layout 1, got 99")


def test_a_checkpoint_of_another_network_is_refused(written: tuple[Path, TrainState]) -> None:
    assert_refused(written[0], "does not fit this network", width=5)


@pytest.mark.parametrize("state", [None, "x", "[]", "null", '{"layout": 1}', "{"])
def test_tensors_without_a_whole_header_are_refused(written: tuple[Path, TrainState], state: str | None) -> None:
    path, _ = written
    path.write_bytes(save(load_file(path), metadata=None if state is None else {"state": state}))
    assert_refused(path, "not a whole checkpoint")


@pytest.mark.parametrize("missing", ["model/0.weight", "average/0.weight", "adam/exp_avg/0.weight", "loss_sum"])
def test_a_checkpoint_without_one_of_its_tensors_is_refused(written: tuple[Path, TrainState], missing: str) -> None:
    path, _ = written
    content = path.read_bytes()
    header = json.loads(json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]["state"])
    tensors = load_file(path)
    del tensors[missing]
    path.write_bytes(save(tensors, metadata={"state": json.dumps(header)}))
    assert_refused(path, "does not match its checksum")
    header["digest"] = digest_of(tensors)
    path.write_bytes(save(tensors, metadata={"state": json.dumps(header)}))
    assert_refused(path, f"does not fit this network .*{missing}")


def test_a_flipped_bit_in_the_tensors_is_found(written: tuple[Path, TrainState]) -> None:
    path, _ = written
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert_refused(path, "does not match its checksum")


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", "no such checkpoint")


def test_a_folder_in_place_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path, "not a whole checkpoint")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_executed(tmp_path: Path) -> None:
    exploded = tmp_path / "exploded"
    (tmp_path / "pickled").write_bytes(pickle.dumps(Bomb(exploded)))
    torch.save({"model": Bomb(exploded)}, tmp_path / "torched")
    for name in ("pickled", "torched"):
        assert_refused(tmp_path / name, "not a whole checkpoint")
    assert not exploded.exists()


# A kill while writing


def test_a_kill_before_the_rename_leaves_the_old_checkpoint(
    written: tuple[Path, TrainState], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, state = written
    before = path.read_bytes()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(path, train(state, 1), MARK)
    assert path.read_bytes() == before
    save_checkpoint(path, state, MARK)  # the remains of the kill do not prevent it
    assert list(path.parent.iterdir()) == [path]


def test_two_writers_of_one_file_with_the_same_process_id_do_not_meet(tmp_path: Path) -> None:
    # Process ids in containers are small, so a stalled owner and its successor may have the same id.
    names = {temporary_name(tmp_path / "weights") for _ in range(100)}
    assert len(names) == 100
    assert all(fnmatch(name.name, ".*.writing") for name in names)  # the pattern that remove_parts uses


@pytest.mark.parametrize("name", ["ж" * 122 + "_x2.png", "画" * 80 + ".png", "a" * 255, "€" * 85])
def test_a_file_is_written_whose_name_is_as_long_as_a_name_may_be(
    tmp_path: Path, needs_name: NeedsName, name: str
) -> None:
    needs_name(name)
    write_durably(tmp_path / name, b"new")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"new"


def test_what_an_interrupt_cuts_off_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_durably(tmp_path / "weights", b"new")
    assert list(tmp_path.iterdir()) == []


def _folders_fail_to_sync(number: int, folder: Path) -> Callable[[int], None]:
    def sync(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise OSError(number, os.strerror(number))

    return sync


@pytest.mark.parametrize("name", ["EINVAL", "ENOTSUP", "EACCES", "EBADF", "EPERM", "ENOSYS"])
def test_a_file_system_that_cannot_sync_folders_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(os, "fsync", _folders_fail_to_sync(getattr(errno, name), tmp_path))
    write_durably(tmp_path / "weights", b"new")
    assert (tmp_path / "weights").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["EIO", "ENOSPC"])
def test_a_disk_that_fails_is_an_error_also_when_a_folder_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(os, "fsync", _folders_fail_to_sync(getattr(errno, name), tmp_path))
    with pytest.raises(OSError) as failure:
        write_durably(tmp_path / "weights", b"new")
    assert failure.value.errno == getattr(errno, name)


def test_parts_that_kills_left_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in (
        ".weights.7.writing",
        "deep/.config.json.8.writing",
        temporary_name(Path("weights")).name,
        "deep/weights",
        ".hidden",
    ):
        (tmp_path / name).touch()
    remove_parts(tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [".hidden", "weights"]


def test_a_file_is_on_the_disk_before_it_takes_the_name_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync = os.fsync
    replace = Path.replace

    def synced(descriptor: int) -> None:
        kind = "folder" if os.path.samestat(os.fstat(descriptor), tmp_path.stat()) else "file"
        done.append(kind)
        sync(descriptor)

    def renamed(aside: Path, target: Path) -> Path:
        done.append("rename")
        return replace(aside, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_durably(tmp_path / "weights", b"new")
    assert done == ["file", "rename", "folder"]


# Weights and their digest


def test_saved_weights_load_as_they_were_and_their_digest_names_them(tmp_path: Path) -> None:
    model = train(fresh(), 1).model
    digest = save_weights(tmp_path / "w", model)
    loaded = load_file(tmp_path / "w")
    assert loaded.keys() == model.state_dict().keys()
    assert digest == digest_of(loaded) == digest_of(weights_of(model))


def test_a_digest_depends_on_names_types_shapes_and_every_bit() -> None:
    plain = {"a": torch.zeros(4), "b": torch.ones(2)}
    others = [
        {"a": torch.zeros(4), "c": torch.ones(2)},
        {"a": torch.zeros(4, dtype=torch.float64), "b": torch.ones(2)},
        {"a": torch.zeros(4, dtype=torch.int32), "b": torch.ones(2)},
        {"a": torch.zeros(2, 2), "b": torch.ones(2)},
        {"a": torch.tensor([0.0, 0.0, 0.0, -0.0]), "b": torch.ones(2)},
        {"a": torch.zeros(4)},
    ]
    assert len({digest_of(tensors) for tensors in (plain, *others)}) == 1 + len(others)


def test_a_digest_does_not_depend_on_order_or_memory_layout() -> None:
    weight = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    one = {"a": weight, "b": torch.ones(2)}
    other = {"b": torch.ones(2), "a": weight.to(memory_format=torch.channels_last)}
    assert digest_of(one) == digest_of(other)
