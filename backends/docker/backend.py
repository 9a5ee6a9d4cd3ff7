"""The Docker backend: a job is one labelled container, named by the job's id."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from backends.common.names import CACHE, JOB, KIND, MANAGED, NIX, NONCE, PUBLIC_IMAGE, SCOPE
from backends.common.workspaces import WorkspaceMethods
from backends.docker.archive import read_file
from backends.docker.check import check_engine, fallback_log_driver
from backends.docker.container import (
    FOLDER,
    LOG_DRIVER,
    SPEC,
    DeliveryArchive,
    container_config,
    has_own_network,
    log_settings,
)
from backends.docker.engine import (
    CONNECT_SECONDS,
    LONGEST_EXPLANATION,
    AnswerError,
    Engine,
    NotReachedError,
    checking_answer,
    is_local,
)
from backends.docker.housekeeping import housekeep
from backends.docker.image import OUR_IMAGE, choose_image, has_image, setup_image
from backends.docker.log import DockerLog
from backends.docker.names import has_labels, volume_name
from backends.docker.podman_log import open_podman_log
from backends.docker.removal import remove_container
from backends.docker.restarts import was_restarted
from backends.docker.results import read_results
from backends.docker.shapes import RECORD
from backends.docker.volumes import DockerVolumes
from stoke.backend.api import (
    Capabilities,
    Cause,
    CheckResult,
    Delivery,
    EngineState,
    EngineStatus,
    FoundJob,
    LogStream,
    PhaseReport,
    UnsettledSubmitError,
    Volume,
)
from stoke.backend.capabilities import Channel, NotStartedError, ResultEntry
from stoke.config.model import Config
from stoke.delivery.bind_mounts import resolve_mounts
from stoke.errors import EngineError, RequestError
from stoke.files.shapes import checked, is_exit_code, is_time
from stoke.files.untrusted import parse_json
from stoke.remote.protocol import JobFolder
from stoke.request.spec import JobSpec
from stoke.request.workspace_name import WORKSPACE

if TYPE_CHECKING:
    from backends.docker.workspaces import DockerWorkspaces

# How long `stop` waits for the engine's answer. The engine has all it needs once the request is
# sent.
STOP_SECONDS = 0.3
# The longest spec, with every character escaped.
MAX_SPEC = 64 * 1024**2
# SIGKILL, SIGTERM, and what an engine reports that does not know the exit code.
ENDED_FROM_OUTSIDE = (137, 143, 255)


class DockerBackend(WorkspaceMethods):
    """Run jobs in containers. Creating an instance connects to nothing and does not import
    docker-py."""

    name = "docker"

    def __init__(self, config: Config) -> None:
        self._config = config
        self._engine = Engine(config.docker.host)
        self._volumes = DockerVolumes(self._engine)
        self.capabilities = Capabilities(
            images=True,
            limits=True,
            system_packages=True,
            counts_bytes=has_own_network(config),
            labels=True,
            isolation="jobs run as root of a container without capabilities or new privileges; "
            "jobs of one scope can change each other's packages",
            workspaces=True,
        )

    def shares_network(self) -> bool:
        try:
            return is_local(self._engine.address().url)
        except EngineError:
            return False  # Submitting reports the reason.

    def check_mounts(self, spec: JobSpec) -> None:
        if not self.shares_network():
            raise RequestError(
                "mounts",
                "the engine is on another machine, which does not have this machine's files",
                "use an engine on this machine, or fetch the data in the code",
            )
        resolve_mounts(spec, self._config)

    # ------------------------------------------------------------------ jobs

    def submit(self, delivery: Delivery, report: PhaseReport) -> None:
        wanted = delivery.spec.image or self._config.docker.image
        image = choose_image(self._engine, wanted, report)
        began, clock = time.time(), time.monotonic()
        report("start", began, None)
        if delivery.spec.use_cache:
            self._volumes.ensure(delivery.spec.scope, "python")
            if delivery.spec.system:
                self._volumes.ensure(delivery.spec.scope, "system")
        if delivery.spec.workspace is not None:
            self._workspaces().ensure(delivery.spec.workspace, delivery.spec.scope)
        created = may_have_begun = False
        try:
            if self._create(delivery, image):
                created = True
                self._refuse_ignored_limits(delivery)
                self._deliver(delivery, image)
                may_have_begun = True
                self._start(delivery.job_id, image)
        except BaseException as error:
            # Also after ctrl+c. A job that has started stays a job, whatever happened to the
            # response.
            runs = self._undo_submit(delivery.job_id)
            is_refused = isinstance(error, NotReachedError | AnswerError)
            if runs is None and (created or not is_refused):
                may_have_begun = may_have_begun and not is_refused
                raise UnsettledSubmitError(
                    delivery.job_id, error, may_have_begun=may_have_begun
                ) from error
            if not runs:
                raise
        report("start", began, time.monotonic() - clock)

    def _create(self, delivery: Delivery, image: str) -> bool:
        """Create the container. Return False if an earlier submit of this job has started it
        already."""
        try:
            try:
                self._post_create(delivery, image, LOG_DRIVER)
            except AnswerError as error:
                if not _lacks_log_driver(error):
                    raise
                self._post_create(delivery, image, fallback_log_driver(self._engine))
        except AnswerError as error:
            _refuse_limits(error)
            _refuse_image(error, image)
            if error.status != 409:
                raise
            record = self._record(delivery.job_id)
            if record is None:
                raise EngineError(
                    f"another container is already called {delivery.job_id}",
                    f"remove or rename it: docker rename {delivery.job_id} NAME",
                ) from error
            with checking_answer(f"create {delivery.job_id}"):
                return bool(record["State"]["Status"] == "created")
        return True

    def _post_create(self, delivery: Delivery, image: str, log_driver: str) -> None:
        config = container_config(delivery, self._config, image, log_driver)
        with self._engine.call(f"create {delivery.job_id}") as api:
            api.create_container_from_config(config, name=delivery.job_id)

    def _refuse_ignored_limits(self, delivery: Delivery) -> None:
        """Raise `RequestError` for a limit that the engine ignored.

        Rootless Podman on cgroups v1 drops limits without a warning.
        """
        spec = delivery.spec
        wanted = {"memory": (spec.memory, "Memory"), "cpu": (spec.cpu, "NanoCpus")}
        if all(limit is None for limit, _ in wanted.values()):
            return
        record = self._record(delivery.job_id)
        if record is None:
            raise EngineError(f"the engine has removed the container {delivery.job_id}")
        for field, (limit, key) in wanted.items():
            if limit is not None and not record.get("HostConfig", {}).get(key):
                raise RequestError(
                    field, "this engine ignores the limit", "see the line 'limits' of: stoke doctor"
                )

    def _deliver(self, delivery: Delivery, image: str) -> None:
        archive = DeliveryArchive(delivery)
        try:
            with self._engine.call(f"deliver {delivery.job_id}") as api:
                api.put_archive(delivery.job_id, FOLDER, archive)
        except AnswerError as error:
            _refuse_image(error, image)
            raise

    def _start(self, job_id: str, image: str) -> None:
        try:
            with self._engine.call(f"start {job_id}") as api:
                api.start(job_id)
        except AnswerError as error:
            if "python3" in error.explanation and "not found" in error.explanation:
                raise EngineError(
                    f"the image {image} has no python3 on its PATH",
                    "name one with Python 3.9 or later: --image IMAGE",
                ) from error
            raise

    def _undo_submit(self, job_id: str) -> bool | None:
        """Remove what a failed submit created.

        Return True if the job is running all the same, and None if the engine does not answer.
        """
        try:
            record = self._record(job_id)
            if record is None:
                return False
            with checking_answer(f"inspect {job_id}"):
                if record["State"]["Status"] != "created":
                    return True
            self.remove(job_id)
        except EngineError:
            return None
        return False

    def inspect(self, job_id: str) -> EngineState:
        record = self._record(job_id)
        if record is None:
            return EngineState(EngineStatus.ABSENT)
        with checking_answer(f"inspect {job_id}"):
            state = _state(record["State"])
        if state.exit_code not in ENDED_FROM_OUTSIDE or state.reason is not None:
            return state
        # Events name a container by its id alone.
        restarted = was_restarted(self._engine, str(record.get("Id")))
        return replace(state, cause=Cause.ENGINE_RESTART) if restarted else state

    def logs(self, job_id: str, since: int, follow: bool) -> LogStream:
        record = self._record(job_id)
        if record is None:
            raise EngineError(f"cannot read the log of {job_id}: there is no such container")
        with checking_answer(f"read the log of {job_id}"):
            driver, max_size, tagged = log_settings(record)
            has_ended = record["State"]["Status"] == "exited"
        # Podman reports its own driver as "json-file".
        container = _reference(record, job_id)
        if driver != LOG_DRIVER and self._engine.is_podman():
            return open_podman_log(self._engine, container, since, follow, has_ended, max_size)
        return DockerLog(self._engine, container, since, follow, driver, max_size, tagged)

    def stop(self, job_id: str, grace: float) -> None:
        if grace <= 0:
            self._signal(job_id, lambda api, container: api.kill(container, "SIGKILL"))
        else:
            seconds = math.ceil(grace)
            self._signal(job_id, lambda api, container: _ask_to_stop(api, container, seconds))

    def interrupt(self, job_id: str) -> None:
        self._signal(job_id, lambda api, container: api.kill(container, "SIGINT"))

    def enter(self, job_id: str) -> Channel:
        record = self._record(job_id)
        if record is None:
            raise EngineError(f"cannot enter {job_id}: there is no such container")
        with checking_answer(f"enter {job_id}"):
            status = _state(record["State"]).status
        if status is EngineStatus.CREATED:
            raise NotStartedError(f"{job_id} has not started yet")
        if status is not EngineStatus.RUNNING:
            raise EngineError(f"cannot enter {job_id}: its container has ended")
        from backends.docker.channel import DockerChannel

        entry = f"{FOLDER}/{JobFolder.WORK}/{JobFolder.ENTRY}"
        return DockerChannel(self._engine, _reference(record, job_id), entry)

    def _signal(self, job_id: str, send: Callable[[Any, str], None]) -> None:
        """Send a signal with `send`, unless the job has ended or was removed."""
        record = self._record(job_id)
        if record is None:
            return
        try:
            with self._engine.call(f"stop {job_id}") as api:
                send(api, _reference(record, job_id))
        except AnswerError as error:
            # 404 and 409: removed or ended already. Podman answers 500 for a container that has ended.
            if error.status not in (404, 409) and self._is_running(job_id):
                raise

    def _is_running(self, job_id: str) -> bool:
        record = self._record(job_id)
        with checking_answer(f"inspect {job_id}"):
            return record is not None and _state(record["State"]).status is EngineStatus.RUNNING

    def remove(self, job_id: str) -> None:
        self._remove(job_id, wait=True)

    def remove_soon(self, job_id: str) -> None:
        self._remove(job_id, wait=False)

    def _remove(self, job_id: str, wait: bool) -> None:
        record = self._record(job_id)
        if record is None:
            return
        container = _reference(record, job_id)
        try:
            remove_container(self._engine, container, f"remove {job_id}", wait)
        except AnswerError as error:
            if error.status != 409:  # the engine is removing it already
                raise

    def results(
        self,
        job_id: str,
        progress: Callable[[str], None],  # noqa: ARG002
    ) -> Generator[ResultEntry] | None:
        record = self._record(job_id)
        if record is None:
            return None
        return read_results(self._engine, _reference(record, job_id), self._config.results.max_size)

    def has_results(self, job_id: str) -> bool:
        entries = self.results(job_id, lambda _: None)
        if entries is None:
            return False
        with closing(entries):
            return next(entries, None) is not None

    def forget_results(self, job_id: str) -> None:
        """Do nothing: they are removed with the container."""

    def jobs(self) -> list[FoundJob]:
        filters = {"label": [f"{MANAGED}=true", f"{KIND}=job"]}
        with self._engine.call("list the jobs") as api:
            listed = api.containers(all=True, filters=filters)
            return [found for one in listed if (found := self._found(one)) is not None]

    def _found(self, container: dict[str, Any]) -> FoundJob | None:
        labels = container["Labels"]
        job_id, scope, nonce = labels.get(JOB), labels.get(SCOPE), labels.get(NONCE)
        if not isinstance(scope, str) or not isinstance(job_id, str):
            return None
        if not isinstance(nonce, str | None):
            return None
        if f"/{job_id}" not in container["Names"] and not self._is_renamed(container, job_id):
            return None
        created = float(container["Created"])
        if not is_time(created):
            raise ValueError("an invalid time")
        read_spec = partial(self._public_spec, job_id, str(container["Id"]))
        return FoundJob(job_id, scope, created, nonce, read_spec)

    def _record(self, job_id: str) -> dict[str, Any] | None:
        """Return the engine's record of a job's container, also if a person has renamed it.

        None for a container that only has the job's name.
        """
        record = self._inspected(job_id, job_id)
        if record is not None:
            return record
        filters = {"label": [f"{MANAGED}=true", f"{KIND}=job", f"{JOB}={job_id}"]}
        with self._engine.call(f"inspect {job_id}") as api:
            renamed = [
                one["Id"]
                for one in api.containers(all=True, filters=filters)
                if self._is_renamed(one, job_id)
            ]
        return self._inspected(renamed[0], job_id) if renamed else None

    def _inspected(self, container: str, job_id: str) -> dict[str, Any] | None:
        try:
            with self._engine.call(f"inspect {job_id}") as api:
                record: dict[str, Any] = checked(api.inspect_container(container), RECORD)
                ours = has_labels(record["Config"], {MANAGED: "true", KIND: "job", JOB: job_id})
        except AnswerError as error:
            if error.status == 404:
                return None
            raise
        return record if ours else None

    def _is_renamed(self, container: dict[str, Any], job_id: str) -> bool:
        """Whether a listed container with a job's labels and another name is the job's.

        `docker commit` copies the labels to an image, and each container of that image has them.
        """
        if not has_labels(container, {JOB: job_id}):
            return False
        try:
            with self._engine.call(f"inspect {job_id}") as api:
                image = api.inspect_image(container["ImageID"])["Config"] or {}
        except AnswerError as error:
            if error.status == 404:
                return (
                    False  # The image was removed by force, so whose labels these are is unknown.
                )
            raise
        return not has_labels(image, {JOB: job_id})

    def _public_spec(self, job_id: str, container: str) -> bytes | None:
        """Return the spec beside the job if it is still valid: the job's code can overwrite it."""
        try:
            with self._engine.call(f"read the spec of {job_id}") as api:
                spec = read_file(api, container, f"{FOLDER}/{SPEC}", MAX_SPEC)
            if spec is not None:
                parse_json(spec)
        except (EngineError, ValueError):
            return None
        return spec

    # ------------------------------------------------------------------ caches

    def project_store(self, scope: str) -> str | None:
        try:
            return f"{self._engine.address().url} {volume_name(scope, 'python')}"
        except EngineError:
            return None  # Submitting reports the reason.

    def volumes(self) -> list[Volume]:
        return self._volumes.found()

    def housekeep(
        self, volume: Volume, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        self._volumes.check_is_ours(volume.name)
        if operation["do"] == "clear":
            self._volumes.refuse_foreign_users(volume.name)
        image = self._housekeeping_image(operation.get("image"))
        return housekeep(self._engine, self._config, image, volume, operation, progress)

    def _housekeeping_image(self, last: object = None) -> str:
        """Return the configured image; without one ours, or `last` if the engine has only that."""
        wanted = self._config.docker.image
        if wanted is None and isinstance(last, str) and not has_image(self._engine, OUR_IMAGE):
            wanted = last if has_image(self._engine, last) else None
        return choose_image(self._engine, wanted, lambda *_: None)

    def forget_scope(self, scope: str) -> None:
        self._volumes.remove(scope)

    # ------------------------------------------------------------------ workspaces

    def _workspaces(self) -> DockerWorkspaces:
        from backends.docker.workspaces import DockerWorkspaces

        return DockerWorkspaces(self._engine, self._config, self._housekeeping_image)

    # ------------------------------------------------------------------ the rest

    def check(self) -> list[CheckResult]:
        return check_engine(self._engine, self._config)

    def render(self, delivery: Delivery) -> str:
        """Return the container's configuration as JSON, without asking the engine which images it
        has."""
        image = delivery.spec.image or self._config.docker.image or OUR_IMAGE
        config = container_config(delivery, self._config, image)
        return json.dumps({"name": delivery.job_id, **config}, indent=2)

    def setup_image(
        self, base: str | None, tag: str | None, progress: Callable[[str], None]
    ) -> str:
        """Build the default image for jobs; see `backends.docker.image`."""
        tag = tag or OUR_IMAGE
        setup_image(self._engine, base or PUBLIC_IMAGE, tag, progress)
        return tag

    def close(self) -> None:
        self._engine.close()


def _reference(record: dict[str, Any], job_id: str) -> str:
    """Return what the engine knows a job's container by: the job's id, unless it was renamed."""
    name, container = record.get("Name"), record.get("Id")
    return job_id if container is None or name in (None, f"/{job_id}") else str(container)


def _state(state: dict[str, Any]) -> EngineState:
    """Return the state from a container's `State`. Raises one of `MISSHAPEN` if it has another
    shape."""
    status = state["Status"]
    reason = str(state.get("Error") or "")[:LONGEST_EXPLANATION] or None
    if status in ("created", "initialized"):  # Podman reports "initialized" just before the start
        return EngineState(EngineStatus.CREATED, reason=reason)
    started = epoch(state["StartedAt"])
    # Podman reports "stopping" until the process has ended; only then is there an exit code.
    if status in ("running", "paused", "restarting", "stopping"):
        return EngineState(EngineStatus.RUNNING, started_at=started)
    code = state["ExitCode"]
    if not is_exit_code(code):
        raise ValueError("an invalid exit code")
    # The engine reports this also for a killed child process that the code outlived.
    if state.get("OOMKilled") and code != 0:
        reason = "out of memory"
    return EngineState(EngineStatus.EXITED, code, reason, started, epoch(state["FinishedAt"]))


def _lacks_log_driver(error: AnswerError) -> bool:
    """Whether the engine lacks the log driver. Docker has two messages for this, Podman a third."""
    words = error.explanation.lower()
    return any(one in words for one in ("logging plugin", "no log driver", "invalid log driver"))


def _refuse_limits(error: AnswerError) -> None:
    """Raise `RequestError` if the machine cannot provide a limit, which only the engine knows."""
    words = error.explanation.lower()  # "Range of CPUs" before Docker 27.5, "range of CPUs" since.
    for field, limit in (("cpu", "range of cpus"), ("memory", "memory limit")):
        if error.status == 400 and limit in words:
            raise RequestError(field, f"the engine rejects it: {error.explanation}") from error


def _refuse_image(error: AnswerError, image: str) -> None:
    """Raise `EngineError` if the image has a file where a volume has to be mounted."""
    if not re.search("over existing file|not a directory|file exists", error.explanation):
        return
    for folder in (FOLDER, CACHE, NIX, WORKSPACE):
        # Matches the last part of a path, not the beginning of a volume's name.
        if re.search(rf"[ /]{folder[1:]}([ ,:]|$)", error.explanation):
            raise EngineError(
                f"the image {image} has a file at {folder}, where a job needs a folder",
                "name an image without it: --image IMAGE",
            ) from error


def _ask_to_stop(api: Any, job_id: str, grace: int) -> None:
    """Start the engine's own stop, which continues, SIGKILL included, without this connection.

    A signal of ours before it would reach the code a second time, and a thread of ours would end
    with this program. The container has its own stop signal, so the image's does not matter.
    """
    from requests.exceptions import ReadTimeout

    try:
        answer = api._post(
            api._url("/containers/{0}/stop", job_id),
            params={"t": grace},
            timeout=(CONNECT_SECONDS, STOP_SECONDS),
        )
    except ReadTimeout:
        return
    api._raise_for_status(answer)


def epoch(text: str) -> float | None:
    """Return the engine's time as epoch seconds, or None for the year 1, which means "never"."""
    if text.startswith("0001-"):
        return None
    # Go prints up to nine digits of a second; fromisoformat ignores those after the sixth.
    seconds = datetime.fromisoformat(text).timestamp()
    if not is_time(seconds):
        raise ValueError("an invalid time")
    return seconds
