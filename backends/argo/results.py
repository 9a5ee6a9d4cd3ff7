"""Read the results of a job on a cluster: a short pod mounts the cache and prints them as a tar stream.

The stream is saved on this machine first, so a download that was cut off continues at its last byte,
also in a later process.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

from backends.argo.bundle import unpack_spec
from backends.argo.cluster import Cluster
from backends.argo.housekeeping import lines_of_workflow
from backends.argo.names import claim_name, labels_of
from backends.argo.resources import KubernetesResources
from backends.argo.run_names import labelled_id
from backends.argo.task_names import TEMPLATE, number_of
from backends.argo.task_status import as_job
from backends.argo.templates import spec_of
from backends.argo.workflow import make_housekeeping
from backends.common.names import JOB, PUBLIC_IMAGE, SCOPE
from backends.common.tar_entries import DamagedTarError, read_entries
from stoke.backend.api import Volume
from stoke.backend.capabilities import ResultEntry
from stoke.config.model import Config
from stoke.errors import EngineError
from stoke.files.atomic import write_atomically
from stoke.files.debug import Logger
from stoke.files.paths import job_dir, make_private
from stoke.files.shapes import Shape, checked
from stoke.files.untrusted import parse_json, read_json
from stoke.results.collect import TooLargeError
from stoke.text.units import human_bytes

if TYPE_CHECKING:
    from backends.argo.job_locations import JobLocation, JobLocations

_log = Logger(__name__)

POD_BYTES = 64 * 1024**2
"""Bytes that one pod sends, so that a log that is cut costs little."""
MOST_FAILURES = 3
"""Pods in a row that may send nothing new."""
_PART, _ABOUT = "results.tar.part", "results.tar.json"
# Room for headers beside the contents that results.max_size limits.
_HEADERS = 1024 * 250_000
CHUNK = 1024**2
# What `stoke.remote.housekeeping` prints a line.
_LINE: Shape = {"error": str, "hint": str, "begin": {}, "data": str, "result": {}}

Progress = Callable[[str], None]


class PodResults:
    """The results of one job: where they are, and how far they are downloaded."""

    def __init__(
        self, cluster: Cluster, config: Config, image: str, job_id: str, volume: Volume
    ) -> None:
        self._cluster = cluster
        self._resources = KubernetesResources(cluster)
        self._config = config
        self._image = image
        self._job_id = job_id
        self._volume = volume
        self._part = make_private(job_dir(job_id)) / _PART
        self._about = job_dir(job_id) / _ABOUT

    def entries(self, progress: Progress) -> Generator[ResultEntry]:
        """Download what is missing, then give the entries."""
        self._download(progress)
        try:
            with self._part.open("rb") as file:
                yield from read_entries(_pieces(file))
        except DamagedTarError as error:
            self._forget()
            raise EngineError(f"the results of {self._job_id} arrived damaged: {error}") from error
        self._forget()

    def drop(self) -> None:
        """Have the results removed from the cache, without waiting for that."""
        with suppress(EngineError):  # The next prune removes them, once they are old.
            self._start({"do": "drop-results", "kind": "python", "jobs": [self._job_id]})

    def _start(self, operation: Mapping[str, object]) -> str:
        """Create a workflow and return its name. Argo deletes it a minute after its end."""
        name = f"stoke-results-{secrets.token_hex(4)}"
        workflow = make_housekeeping(name, self._volume, operation, self._config, self._image)
        self._resources.create("workflows", workflow)
        return name

    def _download(self, progress: Progress) -> None:
        failures = 0
        while True:
            before = self._size()
            trouble: EngineError | None = None
            try:
                if self._receive(before, progress):
                    return
            except EngineError as error:
                trouble = error
            failures = 0 if self._size() > before else failures + 1
            _log.debug("%s: results cut at %d: %s", self._job_id, self._size(), trouble)
            if failures >= MOST_FAILURES:
                raise trouble or EngineError(
                    f"cannot read the results of {self._job_id}: their log is cut each time",
                    f"try again: stoke results {self._job_id}",
                )

    def _receive(self, offset: int, progress: Progress) -> bool:
        """Append what one pod sends; return whether that was the last byte."""
        operation = {
            "do": "send-results", "kind": "python", "job": self._job_id, "offset": offset,
            "max_bytes": POD_BYTES,
        }  # fmt: skip
        name = self._start(operation)
        _log.debug("%s: results from %d: %s", self._job_id, offset, name)
        try:
            node = self._volume.node
            with closing(
                lines_of_workflow(self._cluster, self._config, name, node, progress)
            ) as lines:
                return self._append(lines, offset, progress)
        finally:
            self._resources.delete_workflow(name)

    def _append(self, lines: Iterable[bytes], offset: int, progress: Progress) -> bool:
        total = 0
        with self._part.open("ab") as file:
            for line in lines:
                said = _parsed(line)
                if "error" in said:
                    raise EngineError(said["error"], said.get("hint"))
                if "begin" in said:
                    begun = self._begin(said["begin"], offset)
                    if begun is None:
                        return False
                    total = begun
                elif "data" in said:
                    if said.get("at") != offset:
                        return False  # The node dropped a part of the log.
                    piece = _unpacked(said["data"])
                    if not piece or offset + len(piece) > total:
                        raise EngineError("a piece of the results is damaged")
                    file.write(piece)
                    offset += len(piece)
                    progress(f"collecting results: {human_bytes(offset)} of {human_bytes(total)}")
                elif "result" in said:
                    return bool(said["result"].get("offset") == offset == total)
        return False

    def _begin(self, about: dict[str, Any], offset: int) -> int | None:
        """Return the stream's size; None if it is another stream than that of the part."""
        limit = self._config.results.max_size
        total = about.get("total")
        if not isinstance(total, int) or total < 0:
            raise EngineError("the results begin without their size")
        if total > limit + _HEADERS:
            raise TooLargeError(
                f"the results have more than {human_bytes(limit)} (results.max_size)"
            )
        known: object = None
        with suppress(OSError, ValueError):
            known = read_json(self._about)
        if offset and known != about:
            self._forget()
            return None
        write_atomically(self._about, json.dumps(about))
        return total

    def _size(self) -> int:
        try:
            return self._part.stat().st_size
        except OSError:
            return 0

    def _forget(self) -> None:
        self._part.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        return checked(parse_json(line), _LINE)  # type: ignore[no-any-return]
    except ValueError:
        raise EngineError("a line of the results is damaged") from None


def _unpacked(text: str) -> bytes:
    try:
        return zlib.decompressobj().decompress(base64.b64decode(text), CHUNK)
    except (ValueError, zlib.error):
        raise EngineError("a piece of the results is damaged") from None


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(CHUNK), b"")


def find_results(
    location: JobLocation, config: Config, job_id: str, last_pod: Mapping[str, Any] | None
) -> PodResults | None:
    """Return where a job's results are; None if nothing outlives its pod, or its workflow is gone.

    `last_pod` is the pod as it was last seen: Argo has deleted the pod of a job that was stopped.
    """
    argo = config.argo
    workflow = None if argo.cache == "none" else location.resources.workflow(job_id)
    scope = labels_of(workflow).get(SCOPE) if workflow else None
    if workflow is None or not scope or labels_of(workflow).get(JOB) != labelled_id(job_id):
        return None
    is_task = number_of(job_id) is not None
    image = argo.image or (_image_of_tasks if is_task else _image_in)(workflow) or PUBLIC_IMAGE
    if is_task:
        workflow = as_job(workflow, job_id)
    node = None
    if argo.cache == "hostpath":
        node = _node_of(location.resources.pod(job_id) or last_pod, workflow)
        if node is None:
            return None  # It never had a node, so its code has not begun.
    volume = Volume("argo", scope, "python", claim_name(scope, "python"), node)
    return PodResults(location.cluster, config, image, job_id, volume)


def _node_of(pod: Mapping[str, Any] | None, workflow: Mapping[str, Any]) -> str | None:
    if pod is not None and pod.get("spec", {}).get("nodeName"):
        return str(pod["spec"]["nodeName"])
    nodes = ((workflow.get("status") or {}).get("nodes") or {}).values()
    return next((str(one["hostNodeName"]) for one in nodes if one.get("hostNodeName")), None)


def _image_in(workflow: Mapping[str, Any]) -> str | None:
    """Return the image that the job's own spec names: its node has it already."""
    try:
        image = parse_json(unpack_spec(spec_of(workflow)) or b"").get("image")
    except (LookupError, TypeError, ValueError, AttributeError):
        return None
    return image if isinstance(image, str) else None


def _image_of_tasks(workflow: Mapping[str, Any]) -> str | None:
    templates = {one["name"]: one for one in workflow["spec"].get("templates") or ()}
    image = (templates.get(TEMPLATE) or {}).get("container", {}).get("image")
    return image if isinstance(image, str) else None


class ArgoResults:
    """The part of the backend that gives results; the attributes are those of the backend."""

    _config: Config
    _locations: JobLocations
    _lock: threading.Lock
    _pods: dict[str, dict[str, Any]]

    def results(self, job_id: str, progress: Progress) -> Generator[ResultEntry] | None:
        found = self._results_of(job_id)
        return None if found is None else found.entries(progress)

    def has_results(self, job_id: str) -> bool:  # noqa: ARG002
        return True  # Only a pod could tell.

    def forget_results(self, job_id: str) -> None:
        with suppress(EngineError):
            found = self._results_of(job_id)
            if found is not None:
                found.drop()

    def _results_of(self, job_id: str) -> PodResults | None:
        with self._lock:
            pod = self._pods.get(job_id)
        return find_results(self._locations.of(job_id), self._config, job_id, pod)
