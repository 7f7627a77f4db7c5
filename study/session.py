"""One session of a study: own it, make the data ready, search, conclude, show; whatever ends it leaves it resumable."""

import argparse
import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from rich.console import Console

from sr_core.data.manifest import fingerprint
from sr_core.data.sources import Pictures
from sr_core.data.validation import MAX_BICUBIC_PSNR
from sr_core.errors import SuiteError, TakenOverError
from sr_core.machine import cores
from sr_core.out_of_memory import is_out_of_memory
from sr_core.training.checkpoint import put_fence
from sr_core.training.compiled import keep_compiled_in
from sr_core.training.memory import share_one_heap
from sr_core.training.runtime import Runtime, gpu_models
from study import provenance
from study.branching import require_own_name
from study.commandline import typed
from study.coordinator import Coordinator, Observer
from study.events import SessionEnded, SessionStarted, Warned, max_bicubic_psnr
from study.executors.opening import open_executor, runtime_for
from study.executors.separate import THIS_PROCESS, GpuRunner, runner_for
from study.experiment import Experiment
from study.folder import StudyFolder
from study.journal import Journal, Place, read
from study.leak_check import check_leaks
from study.opening import (
    Found,
    check_pictures,
    check_same_question,
    check_validation_detail,
    find_pictures,
    first_event,
    prepare_material,
    question_of,
    read_pictures,
    runtime_of,
)
from study.ownership import Ownership
from study.placement import Placement, check_gpus
from study.screen import live, terminal
from study.screen.importance_beside import ImportanceBeside
from study.screen.pulse import Pulse
from study.search.replay import course_of
from study.state import StudyState, fold
from study.stopping import StoppedError, StopSignal, Terminated, signals
from study.tracking.follow import Sink
from study.tracking.follower import Follower
from study.tracking.views import check_addresses, followed, sinks_of, wait_prepared
from study.wall_time import WallTime, table
from study.winner import conclude

TEMPORARY = 75
"""Exit status where the same command goes on later (EX_TEMPFAIL)."""
NOTHING_SUCCEEDED = 3
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
            new = not folder.journal.exists()  # then its pictures are compared before there is anything of it
            found = read_pictures(folder.root, find_pictures(session.args.data, experiment), compare=new)
            check_pictures(experiment, found)  # nothing is written where they will not do
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
class Session:
    """A study that the arguments of `study.run` describe."""

    name: str
    """Of the experiment."""
    experiment: Experiment
    args: argparse.Namespace
    folder: StudyFolder
    wall_time: WallTime
    placement: Placement = field(default_factory=Placement)
    stop: StopSignal = field(default_factory=StopSignal)
    epoch: int = 0
    """Of this session as the study's owner; 0 before it is one."""
    run_on_gpu: GpuRunner = THIS_PROCESS
    """What runs work on a GPU until the workers have it."""

    def run(self, found: Found, ownership: Ownership) -> int:
        """Open or continue the study, search, conclude, show; returns the exit status."""
        self.epoch = ownership.epoch
        out = terminal.console()
        place = Place()
        state = fold(read(self.folder.journal, place)) if self.folder.journal.exists() else StudyState()
        seed = self.experiment.base.seed if self.args.seed is None else self.args.seed
        device = state.opened.runtime["device"] if state.opened else self.placement.device
        self.run_on_gpu = runner_for(self.placement, device)
        self.check(state, seed, found)
        if state.counted > self.args.trials:
            out.print(f"{state.counted} trials are counted already and --trials {self.args.trials} asks for fewer: no "
                      "new one is tried; a larger number searches on", soft_wrap=True)  # fmt: skip
        if _done(state, self.args.trials):
            with self._views(out):
                self.show(out, state)
            return self.status(state)
        root, args = self.folder.root, self.args
        if self.placement.executor == "inline" and self.placement.device == "cpu":
            share_one_heap()  # before the views' threads: the trainings' thread would take over an ended one's heap
        leaks = () if state.opened else check_leaks(root, found, allowed=args.allow_leak)
        with ExitStack() as stack:
            followers = stack.enter_context(self._views(out))  # their stores take seconds to make: beside the pictures
            keep_compiled_in(root / "compiled")
            material = prepare_material(root, found, self.experiment)
            wait_prepared(followers)  # before a worker starts, and before speed is measured
            opened = state.opened or first_event(
                self.folder, self.name, self.experiment, seed, material, leaks,
                data=args.data,
                runtime=runtime_for(self.experiment, args.trials, self.placement, material.store, self.run_on_gpu),
                max_bicubic_psnr=self.new_bound(),
            )  # fmt: skip
            for line in terminal.material(opened):
                out.print(line, markup=False, soft_wrap=True)
            if left_out := found.pictures.left_out.line():
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
                importance=lambda: ImportanceBeside(self.experiment, self.folder.journal),
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
            self.stop.searching = True
            self.start(coordinator, self._not_restored(runtime))
            self.run_on_gpu.close()
            self.wall_time.started()
            end = coordinator.search(self.args.trials)
            if end.reason in ("complete", "exhausted", "timeout") and _to_conclude(coordinator.state):
                if self.placement.executor == "processes":
                    executor.close()  # the conclusion may need the GPU that a worker holds
                with self.wall_time.spent("conclusion"):
                    end = self._conclude(coordinator, end, found.pictures, runtime.device, view)
            coordinator.record(end)
            view.close()
        self.show(out, coordinator.state)
        return self.status(coordinator.state)

    def _conclude(
        self, coordinator: Coordinator, end: SessionEnded, pictures: Pictures, device: str, view: terminal.View
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
                    self.folder, coordinator.state, self.experiment, pictures, device=device, tell=tell,
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

    def status(self, state: StudyState) -> int:
        """The exit status after a session, whose ending it says where that is no good one."""
        end = state.ended
        assert end is not None
        if end.reason in ("interrupted", "terminated"):
            print(f"{end.reason}; the same command goes on from here", file=sys.stderr)
            return 130 if end.reason == "interrupted" else TEMPORARY
        if end.reason == "timeout":
            early = "" if any(t.ended for t in state.trials.values()) else " before any trial had ended"
            print(f"the time is up{early}; the same command goes on from here", file=sys.stderr)
            if early:
                return 0  # nobody failed
        if end.reason == "failures":
            print(f"error: stopped: {end.detail}", file=sys.stderr)
        succeeded = end.reason != "failures" and any(t.counts for t in state.trials.values())
        return 0 if succeeded else NOTHING_SUCCEEDED

    def check(self, state: StudyState, seed: int, found: Found) -> None:
        """Raises SuiteError where the study cannot be run like this, before anything is prepared for it."""
        check_addresses(self.args.tracking_uri, self.args.storage, self.folder.root)
        if self.placement.gpus:
            check_gpus(self.placement.gpus, self.run_on_gpu(gpu_models))
        self.placement.check(state.opened.runtime if state.opened else {"threads": 1}, cores())
        if state.opened is None:
            return
        question = question_of(self.experiment, seed, fingerprint(found.manifest))
        check_same_question(state.opened, question, self.folder, found.pictures)
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
        before = state.session.provenance.get("source") if state.session else None
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

    def show(self, out: Console, state: StudyState) -> None:
        """The result, where to look at it, and the next command to type."""
        for line in self.result(out, state):
            out.print(line, markup=False)  # wrapped between words
        lines: list[str] = []
        if state.concluded is not None:
            lines.append(f"written to {self.folder.results}")
            if not self.folder.training:
                lines.append(f"write it up as one page for a colleague: python -m study.report{self.where()}")
        if self.args.tracking_uri is None:
            from study.tracking.dashboards import ui_command

            lines.append(f"compare the trials: python -m study.ui{self.where()}")
            lines.append(f"  (or, in any folder: {ui_command(self.folder.root)})")
        if self.args.profile:
            lines += table(self.wall_time.breakdown(state, self.placement.slots))
        for line in (*lines, f"next: {self.next_command(state)}"):
            out.print(line, markup=False, soft_wrap=True)  # a command that was broken in two cannot be copied

    def result(self, out: Console, state: StudyState) -> list[str]:
        """What came of it: the table is printed, the sentences are returned."""
        out.print(terminal.ranking_table(state))
        return terminal.summary(state)

    def next_command(self, state: StudyState) -> str:
        """The command to type after this session."""
        if not state.complete:
            return f"python -m study.run{typed(sys.argv[1:])}"
        if state.best() is None:  # references alone: the same command would find nothing to do
            return f"python -m study.run{typed(_with_trials(sys.argv[1:], state.counted + 10))}"
        return f"python -m study.reproduce best{self.where()}"

    def where(self) -> str:
        """The flags that lead another command to this study."""
        root = ["--root", str(self.args.root)] if self.args.root else []
        study = ["--study-name", self.folder.study] if self.folder.study != "quickstart" else []
        return typed([*root, *study])


def _with_trials(arguments: list[str], trials: int) -> list[str]:
    """The same arguments, with another number of trials."""
    kept = [argument for argument in arguments if not argument.startswith("--trials=")]
    if "--trials" in kept:
        place = kept.index("--trials")
        del kept[place : place + 2]
    return [*kept, "--trials", str(trials)]


def _done(state: StudyState, asked: int) -> bool:
    """Whether there is nothing left to do, not even a conclusion."""
    assert state.ended is None or state.session is not None
    enough = state.counted >= asked or (state.ended is not None and state.ended.reason == "exhausted")
    return state.complete and enough and not (state.concluded is not None and state.concluded.missing)


def _to_conclude(state: StudyState) -> bool:
    """Whether there is a winner, and no whole conclusion yet from as many trials and replicates as there are."""
    last = state.concluded
    drawn_from = (last.counted, last.replicates) if last is not None and not last.missing else None
    return state.best() is not None and drawn_from != (state.counted, state.replicated)
