"""The Docker backend: a job is one labelled container, named by the job's id."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from backends.docker.archive import read_file
from backends.docker.check import fallback_log_driver, look
from backends.docker.container import (
    CACHE,
    FOLDER,
    LOG_DRIVER,
    NIX,
    SPEC,
    container_config,
    delivery_archive,
    has_own_network,
    log_settings,
)
from backends.docker.engine import (
    CONNECT_SECONDS,
    LONGEST_EXPLANATION,
    AnswerError,
    Engine,
    is_local,
    understood,
)
from backends.docker.housekeeping import housekeep
from backends.docker.image import OUR_IMAGE, PUBLIC_IMAGE, choose_image, has_image, setup_image
from backends.docker.log import DockerLog
from backends.docker.names import JOB, KIND, MANAGED, NONCE, SCOPE, has_labels
from backends.docker.podman_log import open_podman_log
from backends.docker.removal import remove_container
from backends.docker.volumes import Volumes
from stoke.backend.api import (
    Capabilities,
    CheckResult,
    Delivery,
    EngineState,
    FoundJob,
    LogStream,
    PhaseReport,
    Volume,
)
from stoke.config.model import Config
from stoke.errors import EngineError, RequestError
from stoke.files.untrusted import parse_json

# For how long `stop` stays for the engine's answer. It has what it needs once the request is sent.
STOP_SECONDS = 0.3
# A spec at its largest, every character of it escaped.
MAX_SPEC = 64 * 1024**2


class DockerBackend:
    """Jobs in containers. Making one connects to nothing and imports nothing of docker's."""

    name = "docker"

    def __init__(self, config: Config) -> None:
        self._config = config
        self._engine = Engine(config.docker.host)
        self._volumes = Volumes(self._engine)
        self.capabilities = Capabilities(
            images=True,
            limits=True,
            system_packages=True,
            counts_bytes=has_own_network(config),
            isolation="jobs run as root of a container without capabilities or new privileges; "
            "jobs of one scope can change each other's packages",
        )

    def shares_network(self) -> bool:
        try:
            return is_local(self._engine.address().url)
        except EngineError:
            return False  # Submitting will say why.

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
        try:
            if self._create(delivery, image):
                self._refuse_ignored_limits(delivery)
                self._deliver_and_start(delivery, image)
        except BaseException:
            # Also ctrl+c. What has begun is a job, whatever became of the engine's answer.
            if not self._take_back(delivery.job_id):
                raise
        report("start", began, time.monotonic() - clock)

    def _create(self, delivery: Delivery, image: str) -> bool:
        """Makes the container. False when an earlier submit of this job has started it already."""
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
                    f"a container called {delivery.job_id} is there and is not this job",
                    f"remove or rename it: docker rename {delivery.job_id} NAME",
                ) from error
            with understood(f"create {delivery.job_id}"):
                return bool(record["State"]["Status"] == "created")
        return True

    def _post_create(self, delivery: Delivery, image: str, log_driver: str) -> None:
        config = container_config(delivery, self._config, image, log_driver)
        with self._engine.call(f"create {delivery.job_id}") as api:
            api.create_container_from_config(config, name=delivery.job_id)

    def _refuse_ignored_limits(self, delivery: Delivery) -> None:
        """Rootless Podman on cgroups v1 drops limits, and its answer has no warning."""
        spec = delivery.spec
        wanted = {"memory": (spec.memory, "Memory"), "cpu": (spec.cpu, "NanoCpus")}
        if all(limit is None for limit, _ in wanted.values()):
            return
        record = self._record(delivery.job_id)
        if record is None:
            raise EngineError(f"the engine has removed the container {delivery.job_id}")
        for field, (limit, key) in wanted.items():
            if limit is not None and not record["HostConfig"].get(key):
                raise RequestError(
                    field, "this engine ignores the limit", "see why, under limits: stoke doctor"
                )

    def _deliver_and_start(self, delivery: Delivery, image: str) -> None:
        archive = delivery_archive(delivery)
        try:
            with self._engine.call(f"deliver {delivery.job_id}") as api:
                api.put_archive(delivery.job_id, FOLDER, archive)
        except AnswerError as error:
            _refuse_image(error, image)
            raise
        try:
            with self._engine.call(f"start {delivery.job_id}") as api:
                api.start(delivery.job_id)
        except AnswerError as error:
            if "python3" in error.explanation and "not found" in error.explanation:
                raise EngineError(
                    f"the image {image} has no python3 on its PATH",
                    "name one with Python 3.9 or later: --image IMAGE",
                ) from error
            raise

    def _take_back(self, job_id: str) -> bool:
        """After a failed submit: False when nothing of it runs, and what was made is gone again."""
        try:
            record = self._record(job_id)
            if record is None:
                return False
            with understood(f"inspect {job_id}"):
                if record["State"]["Status"] != "created":
                    return True
            self.remove(job_id)
        except EngineError:
            pass  # Out of reach; it stays labelled, and whoever lists jobs next removes it.
        return False

    def inspect(self, job_id: str) -> EngineState:
        record = self._record(job_id)
        if record is None:
            return EngineState("absent")
        with understood(f"inspect {job_id}"):
            return _state(record["State"])

    def logs(self, job_id: str, since: int, follow: bool) -> LogStream:
        record = self._record(job_id)
        if record is None:
            raise EngineError(f"cannot read the log of {job_id}: there is no such container")
        with understood(f"read the log of {job_id}"):
            driver, max_size, tagged = log_settings(record)
            has_ended = record["State"]["Status"] == "exited"
        # Podman reports its own driver as "json-file".
        if driver != LOG_DRIVER and self._engine.is_podman():
            return open_podman_log(self._engine, job_id, since, follow, has_ended, max_size)
        return DockerLog(self._engine, job_id, since, follow, driver, max_size, tagged)

    def stop(self, job_id: str, grace: float) -> None:
        if grace <= 0:
            self._tell(job_id, lambda api: api.kill(job_id, "SIGKILL"))
        else:
            self._tell(job_id, lambda api: _ask_to_stop(api, job_id, math.ceil(grace)))

    def interrupt(self, job_id: str) -> None:
        self._tell(job_id, lambda api: api.kill(job_id, "SIGINT"))

    def _tell(self, job_id: str, send: Callable[[Any], None]) -> None:
        """Send a signal by `send`, unless the job has ended or gone."""
        if self._record(job_id) is None:
            return
        try:
            with self._engine.call(f"stop {job_id}") as api:
                send(api)
        except AnswerError as error:
            if error.status not in (404, 409):  # gone, ended
                raise

    def remove(self, job_id: str) -> None:
        if self._record(job_id) is None:
            return
        try:
            remove_container(self._engine, job_id, f"remove {job_id}")
        except AnswerError as error:
            if error.status != 409:  # the engine is removing it already
                raise

    def jobs(self) -> list[FoundJob]:
        filters = {"label": [f"{MANAGED}=true", f"{KIND}=job"]}
        with self._engine.call("list the jobs") as api:
            listed = api.containers(all=True, filters=filters)
            return [found for one in listed if (found := self._found(one)) is not None]

    def _found(self, container: dict[str, Any]) -> FoundJob | None:
        labels = container["Labels"]
        job_id, scope, nonce = labels.get(JOB), labels.get(SCOPE), labels.get(NONCE)
        if not isinstance(scope, str) or f"/{job_id}" not in container["Names"]:
            return None  # Somebody copied our labels.
        if not isinstance(nonce, str | None):
            return None
        created = float(container["Created"])
        return FoundJob(job_id, scope, created, nonce, partial(self._public_spec, job_id))

    def _record(self, job_id: str) -> dict[str, Any] | None:
        """What the engine knows of a job of ours; a container that only has its name is none."""
        try:
            with self._engine.call(f"inspect {job_id}") as api:
                record: dict[str, Any] = api.inspect_container(job_id)
                ours = has_labels(record["Config"], {MANAGED: "true", KIND: "job", JOB: job_id})
        except AnswerError as error:
            if error.status == 404:
                return None
            raise
        return record if ours else None

    def _public_spec(self, job_id: str) -> bytes | None:
        """The spec beside the job, if it is still what we put there: the code can write to it."""
        try:
            with self._engine.call(f"read the spec of {job_id}") as api:
                spec = read_file(api, job_id, f"{FOLDER}/{SPEC}", MAX_SPEC)
            if spec is not None:
                parse_json(spec)
        except (EngineError, ValueError):
            return None
        return spec

    # ------------------------------------------------------------------ caches and the rest

    def volumes(self) -> list[Volume]:
        return self._volumes.found()

    def housekeep(
        self, volume: Volume, operation: Mapping[str, object], progress: Callable[[str], None]
    ) -> dict[str, Any]:
        self._volumes.check_is_ours(volume.name)
        if operation["do"] == "clear":
            self._volumes.refuse_strangers(volume.name)
        wanted, last = self._config.docker.image, operation.get("image")
        if wanted is None and isinstance(last, str) and not has_image(self._engine, OUR_IMAGE):
            wanted = last if has_image(self._engine, last) else None
        image = choose_image(self._engine, wanted, lambda *_: None)
        return housekeep(self._engine, self._config, image, volume, operation, progress)

    def forget_scope(self, scope: str) -> None:
        self._volumes.remove(scope)

    def check(self) -> list[CheckResult]:
        return look(self._engine, self._config)

    def render(self, delivery: Delivery) -> str:
        """What the engine would be told, as JSON. It is not asked which images it has."""
        image = delivery.spec.image or self._config.docker.image or OUR_IMAGE
        config = container_config(delivery, self._config, image)
        return json.dumps({"name": delivery.job_id, **config}, indent=2)

    def setup_image(
        self, base: str | None, tag: str | None, progress: Callable[[str], None]
    ) -> str:
        """Builds the image that jobs run in by default; see `backends.docker.image`."""
        tag = tag or OUR_IMAGE
        setup_image(self._engine, base or PUBLIC_IMAGE, tag, progress)
        return tag

    def close(self) -> None:
        self._engine.close()


def _state(state: dict[str, Any]) -> EngineState:
    """A container's `State`; raises one of `MISSHAPEN` for what is none."""
    status = state["Status"]
    reason = str(state.get("Error") or "")[:LONGEST_EXPLANATION] or None
    if status in ("created", "initialized"):  # the second is Podman's, just before the start
        return EngineState("created", reason=reason)
    started = epoch(state["StartedAt"])
    # "stopping" is Podman's, until the process has ended; only then is there an exit code.
    if status in ("running", "paused", "restarting", "stopping"):
        return EngineState("running", started_at=started)
    code = state["ExitCode"]
    if not isinstance(code, int) or not -(1 << 31) <= code < 1 << 32:
        raise ValueError("an exit code that is none")
    # The engine says so also of a child that the code outlived.
    if state.get("OOMKilled") and code != 0:
        reason = "out of memory"
    return EngineState("exited", code, reason, started, epoch(state["FinishedAt"]))


def _lacks_log_driver(error: AnswerError) -> bool:
    """Docker has two wordings, for drivers that are built in and for plugins; Podman has a third."""
    words = error.explanation.lower()
    return any(one in words for one in ("logging plugin", "no log driver", "invalid log driver"))


def _refuse_limits(error: AnswerError) -> None:
    """Only the engine knows how much of each its machine has."""
    words = error.explanation.lower()  # "Range of CPUs" before Docker 27.5, "range of CPUs" since.
    for field, limit in (("cpu", "range of cpus"), ("memory", "memory limit")):
        if error.status == 400 and limit in words:
            raise RequestError(field, f"the engine refuses it: {error.explanation}") from error


def _refuse_image(error: AnswerError, image: str) -> None:
    """The engine cannot mount a volume where the image has a file."""
    if not re.search("over existing file|not a directory|file exists", error.explanation):
        return
    for folder in (FOLDER, CACHE, NIX):
        # As a path's last part, not as the beginning of a volume's name.
        if re.search(rf"[ /]{folder[1:]}([ ,:]|$)", error.explanation):
            raise EngineError(
                f"the image {image} has a file at {folder}, where a job needs a folder",
                "name an image without it: --image IMAGE",
            ) from error


def _ask_to_stop(api: Any, job_id: str, grace: int) -> None:
    """The engine's own stop: it goes on with it, SIGKILL included, when we do not stay to hear.

    A signal of our own before it would be a second one for the code; a thread of our own would end
    with this program. The image's stop signal is not asked: the container has its own.
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
    """The engine's time as epoch seconds; None for the year 1, with which it says "never"."""
    if text.startswith("0001-"):
        return None
    # Go writes up to nine digits of a second; fromisoformat takes what is more than six off.
    return datetime.fromisoformat(text).timestamp()
