"""One session of a study: own it, make the data ready, search, conclude, show; whatever ends it leaves it resumable."""

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace

from rich.console import Console

from sr_core.errors import SuiteError, TakenOverError
from sr_core.patches.validation import MAX_BICUBIC_PSNR
from sr_core.process.machine import cores
from sr_core.process.out_of_memory import is_out_of_memory
from sr_core.process.stopping import StoppedError, StopSignal, Terminated, signals
from sr_core.store.manifest import fingerprint
from sr_core.store.sources import ImageSet
from sr_core.training.checkpoint import put_fence
from sr_core.training.compiled import keep_compiled_in
from sr_core.training.memory import share_one_heap
from sr_core.training.runtime import Runtime, gpu_models
from study.executors.opening import open_executor, runtime_for
from study.executors.placement import check_gpus
from study.executors.separate import THIS_PROCESS, GpuRunner, runner_for
from study.record import provenance
from study.record.branching import require_own_name
from study.record.course import course_of
from study.record.events import SessionEnded, SessionStarted, Warned, max_bicubic_psnr
from study.record.folder import StudyFolder
from study.record.journal import Journal, JournalPosition, read
from study.record.ownership import Ownership
from study.record.state import StudyState, fold
from study.screen import live, terminal
from study.screen.background_importance import BackgroundImportance
from study.screen.pulse import Pulse
from study.search.optuna_private import doubts
from study.session.conclusion import conclude
from study.session.coordinator import Coordinator, Observer
from study.session.leak_check import check_leaks
from study.session.opening import (
    ScannedImages,
    check_images,
    check_same_question,
    check_validation_detail,
    find_images,
    first_event,
    prepare_material,
    question_of,
    read_images,
    runtime_of,
)
from study.session.outcome import TEMPORARY, Outcome, done, lacks_results
from study.session.outcome import with_trials as _with_trials  # noqa: F401
from study.tracking.follow import Sink
from study.tracking.follower import Follower
from study.tracking.views import check_addresses, followed, hold_all, sinks_of, wait_prepared

_CONCLUSION_TOLD_SECONDS = 10.0
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def run_session(session: "Session") -> int:
    """Run or continue a study; returns the exit status."""
    terminal.set_up_logging()
    folder, experiment = session.folder, session.experiment
    folder.require_unpublished()
    require_own_name(folder)
    try:
        with signals(session.stop):
            new = not folder.journal.exists()  # then its images are compared before there is anything of it
            found = read_images(folder.root, find_images(session.args.data, experiment), compare=new)
            check_images(experiment, found)  # nothing is written where they will not do
            if new:
                check_validation_detail(experiment, found, session.new_bound())
            with folder.owned(take_over=session.args.take_over) as ownership:
                return session.run(found, ownership)
    except Terminated:
        print("terminated; the same command goes on from here", file=sys.stderr)
        return TEMPORARY
    except TakenOverError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return TEMPORARY
    except SuiteError as exc:
        if not isinstance(exc.__cause__, OSError) or exc.__cause__.errno not in _DISK_FULL:
            raise
        print(f"error: {' '.join(str(exc).split())}; then type the same command again", file=sys.stderr)
        return TEMPORARY
    except OSError as exc:
        if is_out_of_memory(exc):
            raise  # the same command would meet it again
        print(f"error: {exc.strerror or exc}: {exc.filename or folder.path}; mend it and type the same command again "
              "to go on", file=sys.stderr)  # fmt: skip
        return TEMPORARY
    finally:
        session.run_on_gpu.close()


def _not_restored(runtime: Runtime) -> list[str]:
    """Settings of a record that this machine cannot restore, and those that the record does not name."""
    return [*runtime.unmet(), *runtime.unknown()]


@dataclass(slots=True, kw_only=True)
class Session(Outcome):
    """A study that the arguments of `study.run` describe, while it is run."""

    stop: StopSignal = field(default_factory=StopSignal)
    epoch: int = 0
    """Of this session as the study's owner; 0 before it is one."""
    doubts: list[str] = field(default_factory=list)
    """What to warn of about the sampler; known before anything is written."""

    run_on_gpu: GpuRunner = THIS_PROCESS
    """What runs work on a GPU until the workers have it."""

    @classmethod
    def of(cls, outcome: Outcome) -> "Session":
        """A session that leads to this outcome."""
        return cls(**{one.name: getattr(outcome, one.name) for one in fields(outcome)})

    def run(self, found: ScannedImages, ownership: Ownership) -> int:
        """Open or continue the study, search, conclude, show; returns the exit status."""
        self.epoch = ownership.epoch
        out = terminal.console()
        place = JournalPosition()
        state = fold(read(self.folder.journal, place)) if self.folder.journal.exists() else StudyState()
        seed = self.seed
        device = state.opened.runtime["device"] if state.opened else self.placement.device
        self.run_on_gpu = runner_for(self.placement, device)
        self.check(state, seed, found)
        self.say_if_fewer(out, state)
        if done(self.folder, state, self.args.trials):
            if hold_all(self.folder, state, self.args.tracking_uri, self.args.storage):
                self.show(out, state)
                return self.status(state)
            with self._views(out):
                self.show(out, state)
            return self.status(state)
        root, args = self.folder.root, self.args
        if self.placement.executor == "inline" and self.placement.device == "cpu":
            share_one_heap()  # before the views' threads: the trainings' thread would take over an ended one's heap
        if state.counted < args.trials and not self.folder.training:  # a longer training proposes nothing
            self.doubts = doubts(self.experiment.sampler)
        leaks = () if state.opened else check_leaks(root, found, allowed=args.allow_leak)
        with ExitStack() as stack:
            followers = stack.enter_context(self._views(out))  # their stores take seconds to make: beside the images
            keep_compiled_in(root / "compiled")
            material = prepare_material(root, found, self.experiment)
            wait_prepared(followers)  # before a worker starts, and before speed is measured
            opened = state.opened or first_event(
                self.folder, self.name, self.experiment, seed, material, leaks,
                data=args.data,
                runtime=runtime_for(self.experiment, args.trials, self.placement, material.store, self.run_on_gpu),
                max_bicubic_psnr=self.new_bound(),
            )  # fmt: skip
            for line in terminal.describe_images(opened):
                out.print(line, markup=False, soft_wrap=True)
            if left_out := found.images.left_out.line():
                print(left_out, file=sys.stderr, flush=True)
            journal = Journal(self.folder.journal, ownership.check, place)
            stack.callback(journal.close)
            if state.opened is None:
                journal.append(opened)
                state = state.apply(opened)
            runtime = runtime_of(opened)
            if self.args.timeout:
                self.stop.deadline = time.monotonic() + self.args.timeout
            executor = open_executor(
                self.placement, material.store, runtime, self.experiment.base.data.scale, max_bicubic_psnr(opened),
                self.run_on_gpu,
            )  # fmt: skip
            stack.callback(executor.close)
            view = live.make_view(
                out, args.trials, slots=self.placement.slots, stop=self.stop, views=followers,
                importance=lambda: BackgroundImportance(self.experiment, self.folder.journal),
            )  # fmt: skip
            stack.callback(view.close)
            observers: list[Observer] = [view, Pulse(self.folder.journal), *followers]
            coordinator = Coordinator(
                folder=self.folder,
                journal=journal,
                state=state,
                experiment=self.experiment,
                executor=executor,
                source=provenance.source_hash(),
                observers=observers,
                stop=self.stop,
                retries=self.placement.retries,
            )
            coordinator.checkpoints = ownership.checkpoints
            self.stop.searching = True
            self.start(coordinator, self._not_restored(runtime))
            self.run_on_gpu.close()
            self.wall_time.started()
            end = coordinator.search(self.args.trials)
            if end.reason in ("complete", "exhausted", "timeout") and _to_conclude(self.folder, coordinator.state):
                if self.placement.executor == "processes":
                    executor.close()  # the conclusion may need the GPU that a worker holds
                with self.wall_time.spent("conclusion"):
                    end = self._conclude(coordinator, end, found.images, runtime.device, view)
            coordinator.record(end)
            view.close()
        self.show(out, coordinator.state)
        return self.status(coordinator.state)

    def _conclude(
        self, coordinator: Coordinator, end: SessionEnded, images: ImageSet, device: str, view: terminal.View
    ) -> SessionEnded:
        """Record the conclusion; how the session ends then, which is by a signal if one came meanwhile."""
        what = "concluding: the winner on whole images"
        view.doing(f"{what}, tables, figures")
        told = time.monotonic()

        def tell(how_far: str) -> None:
            nonlocal told
            if time.monotonic() - told > _CONCLUSION_TOLD_SECONDS:
                told = time.monotonic()
                view.doing(f"{what}, {how_far}")

        try:
            coordinator.record(
                conclude(
                    self.folder, coordinator.state, self.experiment, images, device=device, tell=tell,
                    check=self.stop.check,
                )
            )  # fmt: skip
        except StoppedError:
            assert self.stop.reason is not None
            return replace(end, reason=self.stop.reason)
        return end

    def new_bound(self) -> float | None:
        """The bound for the validation crops of a study that begins now; of a study that replays one, that one's."""
        replay = self.experiment.replay
        return MAX_BICUBIC_PSNR if replay is None else course_of(replay).max_bicubic_psnr

    def check(self, state: StudyState, seed: int, found: ScannedImages) -> None:
        """Raises SuiteError where the study cannot be run like this, before anything is prepared for it."""
        check_addresses(self.args.tracking_uri, self.args.storage, self.folder.root)
        if self.placement.gpus:
            check_gpus(self.placement.gpus, self.run_on_gpu(gpu_models))
        self.placement.check(state.opened.runtime if state.opened else {"threads": 1}, cores())
        if state.opened is None:
            return
        question = question_of(self.experiment, seed, fingerprint(found.manifest))
        check_same_question(state.opened, question, self.folder, found.images)
        on_gpus = state.opened.runtime["device"] != "cpu"
        if self.placement.gpus and not on_gpus:
            raise SuiteError(
                f"study {self.folder.study!r} runs on the CPU, not on GPUs: bits would differ; leave out --gpus, or "
                "start a new study with --study-name"
            )
        if on_gpus and self.placement.device == "cpu" and self.placement.slots > 1:
            flag = "add --trials-per-gpu" if self.placement.executor == "ray" else "say which with --gpus"
            raise SuiteError(f"study {self.folder.study!r} runs on GPUs: {flag}, not how many --slots alone")

    def _not_restored(self, runtime: Runtime) -> list[str]:
        """What this machine cannot repeat of the settings that decide bits; on Ray each slot tells its own."""
        return [] if self.placement.executor == "ray" else self.run_on_gpu(_not_restored, runtime)

    def start(self, coordinator: Coordinator, unmet: list[str]) -> None:
        """The session's first lines: who runs it, and what is not as it was."""
        state = coordinator.state
        here = provenance.collect()
        then = state.session.provenance if state.session else {}
        before = then.get("source")
        others = provenance.other_versions(then)
        epoch = self.epoch
        provenance.keep_uncommitted_changes(self.folder.changes(epoch))
        coordinator.record(
            SessionStarted(
                time=time.time(),
                epoch=epoch,
                host=socket.gethostname(),
                pid=os.getpid(),
                trials=self.args.trials,
                provenance=here,
            )
        )
        put_fence(self.folder.fence, epoch)  # for processes of version 0.1
        if "unknown" in (here["git"] or {}):
            message = f"the commit of this code is not recorded: {here['git']['unknown']}"
            coordinator.record(Warned(time=time.time(), message=message))
        if before not in (None, here["source"]):
            message = f"the code has changed since the last session ({before} then, {here['source']} now)"
            coordinator.record(Warned(time=time.time(), message=message))
        if others:
            message = f"proposals or bits may differ from the last session's: {'; '.join(others)}"
            coordinator.record(Warned(time=time.time(), message=message))
        for message in self.doubts:
            coordinator.record(Warned(time=time.time(), message=message))
        if unmet:
            message = f"not every bit of this study can be repeated on this machine: {'; '.join(unmet)}"
            coordinator.record(Warned(time=time.time(), message=message))

    @contextmanager
    def _views(self, out: Console) -> Iterator[list[Follower]]:
        """Followers of this session's views."""

        def say(name: str) -> None:
            later = f"python -m study.sync{self.where()}"
            out.print(f"{name} is not up to date; nothing is lost, later: {later}", markup=False)

        with followed(self.folder, self.sinks(), self.stop, say) as followers:
            yield followers
            ended = time.perf_counter()
        self.wall_time.add("recording", time.perf_counter() - ended)

    def sinks(self) -> list[Sink]:
        """The views to keep up to date."""
        return sinks_of(self.folder, self.args.tracking_uri, self.args.storage)


def _to_conclude(folder: StudyFolder, state: StudyState) -> bool:
    """Whether there is a winner, and no whole conclusion yet from as many trials and replicates as there are."""
    last = state.concluded
    drawn_from = (last.counted, last.replicates) if last is not None and not lacks_results(folder, state) else None
    return state.best() is not None and drawn_from != (state.counted, state.replicated)
