"""Open a shell with the environment that the New job form describes."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from textual.app import SuspendNotSupported
from textual.binding import Binding, BindingType

from stoke.config.model import Config
from stoke.errors import StokeError
from tui.new_job.draft import Draft
from tui.new_job.drafts import HasDrafts
from tui.new_job.validation import FormValidation
from tui.threads import on_thread

_STARTS = ("module", "exec", "args")
"""Fields of what would run in place of the shell."""


class OpensShell(HasDrafts):
    """The New job screen's key for a shell. Code in the form is not run; its metadata counts."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f12", "shell", "Shell", id="new.shell"),
    ]

    _validation: FormValidation

    @property
    def _backend(self) -> str:
        raise NotImplementedError

    def _refuse(self, error: StokeError) -> None:
        raise NotImplementedError

    def action_shell(self) -> None:
        """Step aside for `stoke shell` with the form's environment."""
        draft, backend = self._now(), self._backend
        self._save()
        on_thread(self, lambda: self._passed(draft, backend), self._open_shell, self._refuse)

    def _passed(self, draft: Draft, backend: str) -> bytes:
        """Return the request, checked, for the program that opens the shell."""
        from stoke.cli.passed_request import PassedRequest
        from stoke.config.defaults import with_changes
        from stoke.jobs.prepare import check_request

        values = {**draft.values, **{name: "" for name in _STARTS if name in draft.values}}
        if not values["name"].strip():
            values["name"] = "shell"
        request = self._validation.request(
            replace(draft, values=values, code=draft.code if draft.code.strip() else "pass")
        )
        opening = {"code": "", "shell": True}
        request = replace(request, spec=with_changes(request.spec, **opening))
        check_request(request.spec, self.context.backends.get(backend))
        return PassedRequest(request, backend, self._config_of(backend)).as_bytes()

    def _config_of(self, backend: str) -> Config:
        """Return the configuration with the cluster that was chosen here."""
        config = self.context.config
        context, namespace = self.context.cluster(backend)
        chosen = {"context": context, "namespace": namespace}
        update = {name: value for name, value in chosen.items() if value is not None}
        if backend != "argo" or not update:
            return config
        return config.model_copy(update={"argo": config.argo.model_copy(update=update)})

    def _open_shell(self, request: bytes) -> None:
        from tui.terminal.programs import open_new_shell

        try:
            with self.app.suspend():
                open_new_shell(request)
        except SuspendNotSupported:
            self.show_error(StokeError("there is no terminal for a shell"))
        except StokeError as error:
            self.show_error(error)
        self.context.jobs.refresh()
