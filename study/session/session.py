"""One session of a study: take ownership, prepare the data, search, write results, print them.

However a session ends, the same command resumes the study.
"""

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields, replace

from rich.console import Console

from sr_core.errors import SuiteError, TakenOverError
from sr_core.leaks.overlap import Leak
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
from study.record.events import SessionEnded, SessionStarted, StudyOpened, Warned, max_bicubic_psnr
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
    PreparedImages,
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
from study.tracking.follow import Sink
from study.tracking.follower import Follower
from study.tracking.views import check_addresses, followed, hold_all, sinks_of, wait_prepared

_CONCLUSION_REPORT_SECONDS = 10.0
"""Seconds between two progress lines while the winner is scored on whole images."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def run_session(session: "Session") -> int:
    """Run or continue a study; returns the exit status.

    Raises:
        SuiteError: the study cannot be run with these options or images.
    """
    terminal.set_up_logging()
    folder = session.folder
    experiment = session.experiment
    folder.require_unpublished()
    require_own_name(folder)
    try:
        with signals(session.stop):
            is_new = not folder.journal.exists()  # a new study's images are compared before anything is written
            scanned = read_images(folder.root, find_images(session.options.data, experiment), compare=is_new)
            check_images(experiment, scanned)
            if is_new:
                check_validation_detail(experiment, scanned, session.goal.max_bicubic_psnr(experiment))
            with folder.owned(take_over=session.options.take_over) as ownership:
                return session.run(scanned, ownership)
    except Terminated:
        print("terminated; the same command continues from here", file=sys.stderr)
        return TEMPORARY
    except TakenOverError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return TEMPORARY
    except SuiteError as exc:
        if not isinstance(exc.__cause__, OSError) or exc.__cause__.errno not in _DISK_FULL:
            raise
        print(f"error: {' '.join(str(exc).split())}; then repeat the same command", file=sys.stderr)
        return TEMPORARY
    except OSError as exc:
        if is_out_of_memory(exc):
            raise  # the same command would fail again
        print(
            f"error: {exc.strerror or exc}: {exc.filename or folder.path}; fix this, then repeat the same command to "
            "continue",
            file=sys.stderr,
        )
        return TEMPORARY
    finally:
        session.run_on_gpu.close()


def _not_restored(runtime: Runtime) -> list[str]:
    """Recorded settings that this machine cannot restore, and settings that the record does not name."""
    return [*runtime.unmet(), *runtime.unknown()]


@dataclass(slots=True, kw_only=True)
class Session(Outcome):
    """A study that is being run, and what the session knows about it."""

    stop: StopSignal = field(default_factory=StopSignal)
    epoch: int = 0
    """Number of this ownership of the study; 0 before the session owns it."""
    doubts: list[str] = field(default_factory=list)
    """Warnings about the sampler, collected before anything is written."""
    run_on_gpu: GpuRunner = THIS_PROCESS
    """Runs work on a GPU until the workers use it."""

    @classmethod
    def of(cls, outcome: Outcome) -> "Session":
        """A session that produces this outcome."""
        return cls(**{one.name: getattr(outcome, one.name) for one in fields(outcome)})

    def run(self, scanned: ScannedImages, ownership: Ownership) -> int:
        """Open or continue the study, search, write and print the results; returns the exit status."""
        self.epoch = ownership.epoch
        for line in self.goal.introduction():
            print(line)
        out = terminal.console()
        position = JournalPosition()
        state = fold(read(self.folder.journal, position)) if self.folder.journal.exists() else StudyState()
        device = state.opened.runtime["device"] if state.opened else self.placement.device
        self.run_on_gpu = runner_for(self.placement, device)
        self.check(state, self.seed, scanned)
        self.say_if_fewer(out, state)
        if done(self.folder, state, self.options.trials):
            if (self.folder.root / "stores").is_dir():  # a folder that was removed is not made again for this alone
                scanned.known.save()  # so that the next command need not read these images again
            self._show_again(out, state)
        else:
            state = self._search(out, state, position, scanned, ownership)
            self.show(out, state)
        return self.status(state)

    def _show_again(self, out: Console, state: StudyState) -> None:
        """Print the result of a complete study, and send its views the events that they lack."""
        if hold_all(self.folder, state, self.options.tracking_uri, self.options.storage):
            self.show(out, state)
        else:
            with self._views(out):
                self.show(out, state)

    def _search(
        self,
        out: Console,
        state: StudyState,
        position: JournalPosition,
        scanned: ScannedImages,
        ownership: Ownership,
    ) -> StudyState:
        """Prepare the data, run trials and write the results; returns the state of the study at the end.

        Args:
            position: end of the part of the journal that `state` was read from.
        """
        options = self.options
        root = self.folder.root
        if self.placement.executor == "inline" and self.placement.device == "cpu":
            share_one_heap()  # before the views' threads: else a training's thread reuses the heap of one that ended
        proposes = bool(self.experiment.space.dimensions) and not self.folder.training
        if state.counted < options.trials and proposes:
            self.doubts = doubts(self.experiment.sampler)
        leaks = () if state.opened else check_leaks(root, scanned, allowed=options.allow_leak)

        with ExitStack() as stack:
            followers = stack.enter_context(self._views(out))  # creates their stores while the images are prepared
            keep_compiled_in(root / "compiled")
            material = prepare_material(root, scanned, self.experiment)
            wait_prepared(followers)  # before a worker starts, and before speed is measured

            opened = state.opened or self._first_event(material, leaks)
            for line in terminal.describe_images(opened):
                out.print(line, markup=False, soft_wrap=True)
            left_out = scanned.images.left_out.line()
            if left_out:
                print(left_out, file=sys.stderr, flush=True)

            journal = Journal(self.folder.journal, ownership.check, position)
            stack.callback(journal.close)
            if state.opened is None:
                journal.append(opened)
                state = state.apply(opened)
            if options.timeout:
                self.stop.deadline = time.monotonic() + options.timeout

            runtime = runtime_of(opened)
            executor = open_executor(
                self.placement,
                material.store,
                runtime,
                self.experiment.base.data.scale,
                max_bicubic_psnr(opened),
                self.run_on_gpu,
            )
            stack.callback(executor.close)

            view = live.make_view(
                out,
                options.trials,
                slots=self.placement.slots,
                stop=self.stop,
                views=followers,
                importance=lambda: BackgroundImportance(self.experiment, self.folder.journal),
            )
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
            end = coordinator.search(options.trials)

            if end.reason in ("complete", "exhausted", "timeout") and _to_conclude(self.folder, coordinator.state):
                if self.placement.executor == "processes":
                    executor.close()  # the conclusion may need the GPU that a worker uses
                with self.wall_time.spent("conclusion"):
                    end = self._conclude(coordinator, end, scanned.images, runtime.device, view)
            coordinator.record(end)
            view.close()
        return coordinator.state

    def _first_event(self, material: PreparedImages, leaks: Sequence[Leak]) -> StudyOpened:
        """The first event of a new study: its question, its images, and settings that are fast on this machine."""
        options = self.options
        return first_event(
            self.folder,
            self.name,
            self.experiment,
            self.seed,
            material,
            leaks,
            data=options.data,
            runtime=runtime_for(self.experiment, options.trials, self.placement, material.store, self.run_on_gpu),
            max_bicubic_psnr=self.goal.max_bicubic_psnr(self.experiment),
        )

    def _conclude(
        self, coordinator: Coordinator, end: SessionEnded, images: ImageSet, device: str, view: terminal.View
    ) -> SessionEnded:
        """Record the conclusion; returns how the session ends, which is by a signal if one arrived meanwhile."""
        activity = "concluding: the winner on whole images"
        view.doing(f"{activity}, tables, figures")
        reported = time.monotonic()

        def report(progress: str) -> None:
            nonlocal reported
            if time.monotonic() - reported > _CONCLUSION_REPORT_SECONDS:
                reported = time.monotonic()
                view.doing(f"{activity}, {progress}")

        try:
            coordinator.record(
                conclude(
                    self.folder,
                    coordinator.state,
                    self.experiment,
                    images,
                    device=device,
                    tell=report,
                    check=self.stop.check,
                )
            )
        except StoppedError:
            assert self.stop.reason is not None
            return replace(end, reason=self.stop.reason)
        return end

    def check(self, state: StudyState, seed: int, scanned: ScannedImages) -> None:
        """Check the options against the record and this machine, before anything is prepared.

        Raises:
            SuiteError: the study cannot be run with these options.
        """
        self.goal.check_images(scanned, self.folder)
        check_addresses(self.options.tracking_uri, self.options.storage, self.folder.root)
        if self.placement.gpus:
            check_gpus(self.placement.gpus, self.run_on_gpu(gpu_models))
        self.placement.check(state.opened.runtime if state.opened else {"threads": 1}, cores())
        if state.opened is None:
            return

        question = question_of(self.experiment, seed, fingerprint(scanned.manifest))
        check_same_question(state.opened, question, self.folder, scanned.images)
        on_gpus = state.opened.runtime["device"] != "cpu"
        if self.placement.gpus and not on_gpus:
            raise SuiteError(
                f"study {self.folder.study!r} was begun on the CPU, and GPUs would give other results; leave out "
                "--gpus, or start a new study with --study-name"
            )
        if on_gpus and self.placement.device == "cpu" and self.placement.slots > 1:
            flag = "add --trials-per-gpu" if self.placement.executor == "ray" else "name them with --gpus"
            raise SuiteError(f"study {self.folder.study!r} runs on GPUs; {flag} instead of --slots alone")

    def _not_restored(self, runtime: Runtime) -> list[str]:
        """Settings that decide bits and that this machine cannot restore; on Ray each slot reports its own."""
        return [] if self.placement.executor == "ray" else self.run_on_gpu(_not_restored, runtime)

    def start(self, coordinator: Coordinator, unmet: list[str]) -> None:
        """Record the start of the session, a warning for each difference from the last one, and what is to be trained.

        Args:
            unmet: recorded settings that this machine cannot restore.
        """
        state = coordinator.state
        current = provenance.collect()
        last = state.session.provenance if state.session else {}
        last_source = last.get("source")
        other_versions = provenance.other_versions(last)
        epoch = self.epoch
        provenance.keep_uncommitted_changes(self.folder.changes(epoch))
        coordinator.record(
            SessionStarted(
                time=time.time(),
                epoch=epoch,
                host=socket.gethostname(),
                pid=os.getpid(),
                trials=self.options.trials,
                provenance=current,
            )
        )
        put_fence(self.folder.fence, epoch)  # for processes of version 0.1

        messages: list[str] = []
        if "unknown" in (current["git"] or {}):
            messages.append(f"the commit of this code is not recorded: {current['git']['unknown']}")
        if last_source not in (None, current["source"]):
            messages.append(
                f"the code has changed since the last session ({last_source} then, {current['source']} now)"
            )
        if other_versions:
            messages.append(f"proposals or bits may differ from the last session's: {'; '.join(other_versions)}")
        messages.extend(self.doubts)
        if unmet:
            messages.append(f"not every bit of this study can be repeated on this machine: {'; '.join(unmet)}")
        for message in messages:
            coordinator.record(Warned(time=time.time(), message=message))
        self.goal.begin(coordinator, self.folder)

    @contextmanager
    def _views(self, out: Console) -> Iterator[list[Follower]]:
        """Keep the session's views up to date within this context; yields their followers."""

        def say(name: str) -> None:
            command = f"python -m study.sync{self.study_flags()}"
            out.print(f"{name} is not up to date; nothing is lost, update it later with: {command}", markup=False)

        with followed(self.folder, self.sinks(), self.stop, say) as followers:
            yield followers
            session_ended = time.perf_counter()
        self.wall_time.add("recording", time.perf_counter() - session_ended)

    def sinks(self) -> list[Sink]:
        """The views that this session keeps up to date."""
        return sinks_of(self.folder, self.options.tracking_uri, self.options.storage)


def _to_conclude(folder: StudyFolder, state: StudyState) -> bool:
    """True if there is a winner, and the results do not cover all trials and replicates yet."""
    if state.best() is None:
        return False
    last = state.concluded
    if last is None or lacks_results(folder, state):
        return True
    return (last.counted, last.replicates) != (state.counted, state.replicated)
