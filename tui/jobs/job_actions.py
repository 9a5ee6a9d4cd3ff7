"""What the Jobs screen does to jobs: stop, remove, run again, edit, compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual.app import SuspendNotSupported

from stoke.errors import RequestError, StokeError
from stoke.history.job import SWEEP, Job
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.base_screen import StokeScreen
from tui.context import Context
from tui.jobs.job_list import JobList
from tui.messages import EditRequest
from tui.threads import on_thread

# Whatever the first frame does not show is imported at first use: the start must not wait for it.
if TYPE_CHECKING:
    from stoke.request.spec import JobSpec
    from tui.jobs.bulk_actions import BulkAction, BulkResult
    from tui.jobs.job_detail import JobDetail
    from tui.jobs.repetition import Repetition


class JobActions(StokeScreen):
    """The actions on the marked jobs, or on the one under the cursor."""

    CHANGES = frozenset(
        {"stop", "rerun", "rerun_fresh", "edit", "remove", "add_packages", "repeat", "shell"}
    )

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._detail: JobDetail | None = None
        self._awaited: str | None = None
        """A job to select as soon as the history has it."""
        self._repetition: Repetition | None = None

    @property
    def table(self) -> JobList:
        return self.query_one(JobList)

    @property
    def job(self) -> Job | None:
        """The job under the cursor, as the history has it now."""
        return self.table.job if self.is_mounted else None

    @property
    def detail(self) -> JobDetail:
        """The details, for actions that `check_action` offers only once they are mounted."""
        assert self._detail is not None
        return self._detail

    def _show_counts(self) -> None:
        raise NotImplementedError

    def action_stop(self) -> None:
        from tui.jobs.bulk_actions import stop_action

        context = self.context
        grace = context.config.stop_grace
        self._confirm(
            lambda jobs: stop_action(jobs, context.backends, context.history, grace),
            "already ended",
        )

    def action_remove(self) -> None:
        from tui.jobs.bulk_actions import remove_action

        context = self.context
        self._confirm(
            lambda jobs: remove_action(jobs, context.backends, context.history),
            "still running",
        )

    def _confirm(self, plan: Callable[[list[Job]], BulkAction], why: str) -> None:
        """Ask, then act on the marked jobs, or on the current one if none is marked.

        `why` says why an action applies to none of them.
        """
        from tui.dialogs.prompts import Confirm

        marked, current = tuple(self.table.marked), self.table.current
        wanted = marked or ((current,) if current is not None else ())

        def ask(action: BulkAction) -> None:
            if not action.jobs:
                self.notify(f"Nothing to {action.verb.lower()}: {why}", markup=False, timeout=4)
                return

            def answered(yes: bool | None) -> None:
                if yes:
                    on_thread(self, action.run, show, self.show_error)

            def show(result: BulkResult) -> None:
                done = result.done
                if done:
                    what = clean(done[0]) if len(done) == 1 else fmt.count(len(done), "job")
                    notes = "".join(f". {clean(note)}" for note in result.notes)
                    text = f"{what}: {action.past}{notes}"
                    self.notify(text, markup=False, timeout=8 if notes else 3)
                    self.table.unmark(done)
                for error in result.errors[:3]:
                    self.show_error(error)
                if len(result.errors) > 3:
                    self.show_error(StokeError(f"and {len(result.errors) - 3:,} more errors"))
                self.context.jobs.refresh()

            self.app.push_screen(Confirm(action.title, action.body, action.verb), answered)

        on_thread(self, lambda: plan(self.context.reading.those(wanted)), ask, self.show_error)

    def action_pager(self) -> None:
        """Show the logs of the marked jobs in one, or that of the current job."""
        from tui.jobs.merged_log import show_merged_log

        marked, current = tuple(self.table.marked), self.table.current
        show_merged_log(self, marked or ((current,) if current is not None else ()))

    def action_merge_logs(self) -> None:
        """Show the logs of the marked jobs as one, or that of the current job again."""
        marked, reading = tuple(self.table.marked), self.context.reading
        if self.detail.pane.merging is not None:
            self.detail.show_own_log()
        elif len(marked) < 2:
            self.show_error(
                StokeError("Mark the jobs whose logs to show as one", "space marks a job")
            )
        else:
            on_thread(self, lambda: reading.those(marked), self._show_merged, self.show_error)

    def _show_merged(self, jobs: list[Job]) -> None:
        # The details follow the cursor with a delay, and another job would end the merged log.
        self.detail.show(self.job, self.context.clock())
        try:
            self.detail.show_merged_log(jobs)
        except StokeError as error:
            self.show_error(error)

    def action_shell(self) -> None:
        """Step aside for a shell inside the running or held job."""
        from tui.terminal.programs import open_shell

        job = self.job
        if job is None:
            return
        try:
            with self.app.suspend():
                open_shell(job.id)
        except SuspendNotSupported:
            self.show_error(StokeError("there is no terminal for a shell"))
        except StokeError as error:
            self.show_error(error)
        self.context.jobs.refresh()

    def action_compare(self) -> None:
        """Compare the two marked jobs, the older first.

        With one mark, compare the marked and the current job; without marks, the current job and the
        run before it.
        """
        from stoke.jobs.compare import Comparison, compare
        from tui.jobs.compare import CompareScreen

        reading, current = self.context.reading, self.table.current
        ids = tuple(self.table.marked)
        if len(ids) < 2 and current is not None and current not in ids:
            ids = (*ids, current)

        def work() -> tuple[Comparison, Comparison]:
            jobs = reading.those(ids)
            if len(jobs) == 1 and (before := reading.run_before(jobs[0])) is not None:
                jobs.append(before)
            if len(jobs) != 2:
                raise StokeError(
                    "Mark exactly two jobs to compare them",
                    "space marks a job",
                )
            second, first = jobs
            return compare(first, second, reading), compare(second, first, reading)

        def show(found: tuple[Comparison, Comparison]) -> None:
            self.app.push_screen(CompareScreen(self.context, *found))

        on_thread(self, work, show, self.show_error)

    def action_rerun(self) -> None:
        job = self.job
        if job is not None and (spec := self._spec(job)) is not None:
            self.context.submissions.submit_spec(self, job.backend, spec, job.name, self.show_error)

    def action_rerun_fresh(self) -> None:
        """Run the request again with the files of its project as they are now."""
        job, context = self.job, self.context
        if job is not None and (spec := self._spec(job)) is not None:
            context.submissions.submit_request(
                self, job.backend, lambda: context.fresh_request(spec, job.name), self.show_error
            )

    def action_repeat(self) -> None:
        """Begin to run the job again at each save of its project, or end that."""
        from tui.jobs.repetition import Repetition

        job = self.job
        if self._repetition is not None:
            self._end_repetition()
            self.notify("No longer run at each save", markup=False, timeout=3)
        elif job is not None and (spec := self._spec(job)) is not None and spec.project is not None:
            root = clean(spec.project.root)

            def begun(repetition: Repetition) -> None:
                self._end_repetition()
                self._repetition = repetition
                text = f"{clean(job.name)} runs at each save in {root}; A ends that"
                self.notify(text, markup=False, timeout=5)
                self._show_counts()

            on_thread(
                self,
                lambda: Repetition(
                    self, self.context, job, spec, self._repeated, self._tell_run, self.show_error
                ),
                begun,
                self.show_error,
            )
        self._show_counts()

    def _repeated(self, before: Job, job: Job) -> None:
        """Show a run in the place of the one before it, if that is shown."""
        if self.table.current == before.id:
            self._awaited = job.id

    def _tell_run(self, summary: str) -> None:
        self.notify(summary, markup=False, timeout=5)

    def _end_repetition(self) -> None:
        if self._repetition is not None:
            self._repetition.close()
            self._repetition = None

    def on_unmount(self) -> None:
        self._end_repetition()

    def action_add_packages(self) -> None:
        """Run the request again with the packages that it lacked; ask first if a name is a guess."""
        from stoke.config.defaults import with_packages

        job, packages = self.detail.job, self.detail.to_add
        if job is None or (stored := self._spec(job)) is None:
            return
        names = [package.name for package in packages]
        try:
            spec = with_packages(stored, names)
        except RequestError as error:
            self.show_error(error)
            return

        def submit(yes: bool | None) -> None:
            if yes:
                self.context.submissions.submit_spec(
                    self, job.backend, spec, job.name, self.show_error
                )

        guessed = [package.name for package in packages if package.guessed]
        if not guessed:
            submit(True)
            return
        from tui.dialogs.prompts import Confirm

        body = fmt.plain(f"The code imports {', '.join(guessed)}. ")
        body.append("A package of that name on PyPI may be another one. Look at it there first.")
        self.app.push_screen(Confirm("Add a package by a guessed name?", body, "Add"), submit)

    def action_edit(self) -> None:
        job = self.job
        if job is not None and (spec := self._spec(job)) is not None:
            self.post_message(EditRequest(spec, job.name, job.backend))

    def _spec(self, job: Job) -> JobSpec | None:
        """Return the request of a job; show why if the history has none."""
        from tui.jobs.job_detail import read_spec

        spec = read_spec(self.context.reading, job.id)
        if isinstance(spec, RequestError):
            self.show_error(spec)
            return None
        if job.kind == SWEEP:
            again = f"in a terminal: stoke rerun {job.id}"
            self.show_error(StokeError("A sweep runs again from the command line", again))
            return None
        if spec.shell:
            again = f"in a terminal: stoke rerun {job.id}"
            self.show_error(StokeError("A shell needs a terminal of its own", again))
            return None
        return spec


def has_project(job: Job) -> bool:
    """Whether files of a project traveled with the job, as its phases tell."""
    return any(phase.name == "project" for phase in job.phases)
