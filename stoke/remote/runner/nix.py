"""System packages: programs that Nix keeps on the scope's system volume."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import time

from stoke.remote.common.files import is_below
from stoke.remote.common.nix import NIX_DATABASE_ERROR
from stoke.remote.common.trees import remove_tree
from stoke.remote.protocol import (
    LOCK_SUFFIX,
    METADATA,
    UNFINISHED_SUFFIX,
    HintCode,
    SystemLayout,
)
from stoke.remote.runner.errors import PhaseError
from stoke.remote.runner.file_lock import FileLock
from stoke.remote.runner.files import digest, read_json, record_request, write_atomically
from stoke.remote.runner.memory import out_of_memory_kills
from stoke.remote.runner.network import ConnectionSettings
from stoke.remote.runner.nix_expression import NIX_EXPRESSION
from stoke.remote.runner.tools import killed, run_tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from stoke.remote.protocol import Hint
    from stoke.remote.runner.event_writer import PhaseReporter
    from stoke.remote.runner.job import RemoteJob
    from stoke.remote.schema import SystemPayload

# How Nix quotes the last lines of a build's output.
_BUILDER_LINE = re.compile(r"\s*>(?: |$)")
_BUILD_FAILED = re.compile(r"(?:builder for|Cannot build) '(/nix/store/[^'\n]+\.drv)'")
_BUILD_REST = re.compile(r"\n *(?:last \d+ log|For full logs|Output paths|error:)", re.I)
_UNREACHED = re.compile(r"unable to download|unable to connect|resolve host", re.I)


class SystemPackages:
    """The set of system packages of one request.

    A warm job reads one folder, and needs neither Nix nor a network.
    """

    def __init__(self, job: RemoteJob, requested: SystemPayload) -> None:
        self.job = job
        self.requested = requested
        self.names = sorted(set(self.requested["packages"]))
        self.key = digest([self.names, self.requested["sha256"], os.uname().machine])[:32]
        self.folder = os.path.join(SystemLayout.MOUNT, SystemLayout.SETS, self.key)
        self.state = os.path.join(SystemLayout.MOUNT, SystemLayout.STATE)
        self.lock = os.path.join(self.state, self.key + LOCK_SUFFIX)

    def prepare(self, phase: PhaseReporter) -> list[str]:
        """Find or build the set, and keep it from being collected until the job's end.

        Return the bin folders of the packages, in the order of the request.
        """
        if not self.job.nix:
            raise PhaseError(
                "system packages (%s) need a volume at /nix, and this job has none"
                % ", ".join(self.names[:5]),
                (HintCode.RUN_IN_DOCKER,),
            )
        try:
            os.makedirs(self.state, exist_ok=True)
            metadata = self.job.find_or_build(phase, self.lock, self.find, self.build)
        except OSError as error:
            raise PhaseError(*self.access_error(error)) from None
        phase.facts["packages"] = len(metadata["paths"])
        if phase.facts["cached"] is None:
            phase.facts["cached"] = len(metadata["paths"])
        if self.job.payload["use_cache"]:
            phase.facts["key"] = self.key
            requests = os.path.join(self.state, SystemLayout.REQUESTS)
            record_request(requests, self.requested["request"], self.key)
        return [
            folder for name in self.requested["packages"] for folder in metadata["programs"][name]
        ]

    def find(self) -> dict[str, Any] | None:
        """Return the metadata of the set; None if it or one of its paths is missing."""
        metadata: dict[str, Any] = read_json(os.path.join(self.folder, METADATA))
        try:
            for name, path in metadata["links"].items():
                if os.readlink(os.path.join(self.folder, name)) != path:
                    return None
            for path in metadata["paths"]:
                os.lstat(path)
            if not all(isinstance(metadata["programs"][name], list) for name in self.names):
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return metadata

    def build(self) -> int:
        """Build the set; return how many of its paths the store already had."""
        with FileLock(os.path.join(self.state, SystemLayout.COLLECT_LOCK)) as lock:
            lock.acquire(
                fcntl.LOCK_SH,
                lambda: self.job.events.note(
                    "garbage is being collected on the system volume; waiting"
                ),
            )
            aside = self.folder + UNFINISHED_SUFFIX
            remove_tree(self.folder)  # it is damaged
            remove_tree(aside)
            os.makedirs(aside)
            try:
                return self.build_aside(aside)
            except BaseException:
                remove_tree(aside)
                raise

    def build_aside(self, aside: str) -> int:
        """Fill the folder `aside` and rename it."""
        self.check_store()
        before = set(os.listdir(os.path.join(SystemLayout.MOUNT, "store")))
        links: dict[str, str] = {}
        programs: dict[str, list[str]] = {}
        derivations = []
        source, packages = self.evaluate()
        for package in packages:
            name, outputs = package["name"], package["outputs"]
            derivations.append(package["drv"] + "!" + ",".join(one["name"] for one in outputs))
            for number, output in enumerate(outputs):
                links[name if number == 0 else name + "^" + output["name"]] = output["path"]
            programs[name] = [os.path.join(output["path"], "bin") for output in outputs]
        # Link paths before they exist, so that garbage collection never removes a complete one.
        for name, path in links.items():
            os.symlink(path, os.path.join(aside, name))
        # Keep nixpkgs as long as a set that was made from it: other sets may need it.
        os.symlink(source, os.path.join(aside, ".nixpkgs"))
        self.note_work(derivations)
        paths = self.realise(derivations, list(links.values()))
        for name, folders in programs.items():
            programs[name] = [folder for folder in folders if os.path.isdir(folder)]
        metadata = {
            "links": links,
            "programs": programs,
            "paths": paths,
            "source": source,
            "built_at": time.time(),
        }
        write_atomically(os.path.join(aside, METADATA), json.dumps(metadata))
        os.rename(aside, self.folder)
        names = [os.path.basename(path) for path in paths]
        hits = [name[33:] for name in names if name in before]  # without the store's hash
        misses = [name[33:] for name in names if name not in before]
        self.job.events.packages("system", hits, misses)
        return len(hits)

    def note_work(self, derivations: list[str]) -> None:
        """Note how much Nix will download and build: builds may take hours."""
        _, err = self.run("nix-store", "--realise", "--dry-run", *derivations)
        for line in re.findall(r"(?m)^(th(?:is|ese) .* will be .*):$", err):
            self.job.events.note(line)

    def realise(self, derivations: list[str], outputs: list[str]) -> list[str]:
        """Download or build; return all paths that the outputs need at run time.

        Once, repair paths that are in Nix's database and not on the disk.
        """
        for repaired in (False, True):
            # With --no-build-output, an error repeats the end of it.
            _, err = self.run("nix-store", "--realise", "--no-build-output", *derivations)
            for line in re.findall(r"(?m)^warning: (ignoring substitute .*)$", err):
                self.job.events.note(line)
            listed, _ = self.run("nix-store", "--query", "--requisites", *outputs)
            paths = sorted(set(listed.split()))
            missing = [path for path in paths if not os.path.lexists(path)]
            if not missing:
                return paths
            if not repaired:
                self.job.events.note("%s is damaged; rebuilding it" % os.path.basename(missing[0]))
                self.run("nix-store", "--verify", "--repair")
        raise PhaseError(
            "%s is missing and could not be rebuilt" % missing[0], (HintCode.CLEAR_SYSTEM,)
        )

    def check_store(self) -> None:
        """Check that Nix is installed, and that its database exists or can be made."""
        if not (shutil.which("nix-store") and shutil.which("nix-instantiate")):
            raise PhaseError(
                "this image has no Nix, and the system volume does not hold %s yet"
                % ", ".join(self.names[:5]),
                (HintCode.IMAGE_WITH_NIX,),
            )
        database = os.path.join(SystemLayout.MOUNT, SystemLayout.DATABASE, "db.sqlite")
        with FileLock(os.path.join(self.state, SystemLayout.INIT_LOCK)) as lock:
            lock.acquire(fcntl.LOCK_EX, lambda: None)
            if not os.path.exists(database):
                store = os.path.join(SystemLayout.MOUNT, "store")
                if os.path.isdir(store) and any(name[0] != "." for name in os.listdir(store)):
                    # With a new database, Nix would remove every path as garbage, also those in use.
                    raise PhaseError(
                        "the volume's Nix database is missing", (HintCode.CLEAR_SYSTEM,)
                    )
                self.run("nix-store", "--init")
                os.makedirs(store, exist_ok=True)

    def evaluate(self) -> tuple[str, list[dict[str, Any]]]:
        """Return the path of nixpkgs and, for each name, its derivation and the outputs to use.

        Raises `PhaseError` for unknown names.
        """
        folder = os.path.join(self.job.work, "nix")
        os.makedirs(folder, exist_ok=True)
        requested = {
            "url": self.requested["url"],
            "sha256": self.requested["sha256"],
            "packages": [name.split(".") for name in self.names],
        }
        write_atomically(os.path.join(folder, "requested.json"), json.dumps(requested))
        expression = os.path.join(folder, "packages.nix")
        write_atomically(expression, NIX_EXPRESSION)
        out, _ = self.run(
            "nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode", expression
        )
        answer = json.loads(out)
        found: list[dict[str, Any]] = answer["packages"]
        unknown = [one for one in found if "drv" not in one]
        if unknown:
            raise PhaseError(*unknown_packages(unknown, answer["near"]))
        return answer["source"], found

    def run(self, program: str, *arguments: str) -> tuple[str, str]:
        """Run a program of Nix and return (stdout, stderr). Raise a `PhaseError` if it fails."""
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("NIX_", "XDG_", "PYTHON"))
        }
        settings = [
            "sandbox = false",
            "build-users-group =",
            "connect-timeout = 15",
            "auto-optimise-store = false",  # housekeeping relies on paths that share no files
        ]
        for setting, values in (
            ("substituters", self.requested["substituters"]),
            ("trusted-public-keys", self.requested["trusted_keys"]),
        ):
            if values is not None:
                settings.append("%s = %s" % (setting, " ".join(values)))
        env.update(self.job.shared(ConnectionSettings).variables())
        if "SSL_CERT_FILE" in env:
            env["NIX_SSL_CERT_FILE"] = env["SSL_CERT_FILE"]
        env.update(
            NIX_CONFIG="\n".join(settings),  # overrides the image's nix.conf
            NIX_REMOTE="local",
            XDG_CACHE_HOME=os.path.join(self.state, "cache"),
            XDG_CONFIG_HOME=os.path.join(self.job.work, "nix"),
        )
        kills = out_of_memory_kills()
        code, err, out = run_tool(self.job.termination, [program, *arguments], env)
        if code < 0:
            raise killed(program, -code, kills, self.job.container)
        if code != 0:
            raise self.explain(err)
        return out, err

    def explain(self, text: str) -> PhaseError:
        """Return the error for a failure, with a hint if Nix's messages name the cause."""
        own = "\n".join(line for line in text.split("\n") if not _BUILDER_LINE.match(line))
        built = _BUILD_FAILED.search(own)
        if built:
            lines = [line for line in text.split("\n") if _BUILDER_LINE.match(line)]
            shown = "\n".join(line.strip()[2:] for line in lines)
            text = _BUILD_REST.split(own[built.start() :])[0].strip(" \n;")
            text = re.sub(r"\n\s+", "\n", text)
            return PhaseError(text, None, self.build_log(built[1]) or shown)
        own = own.rpartition("error:")[2]
        own = re.sub(r"(?m)^ *(error: \d+ dependenc|at /stoke/).*\n?", "", own)
        own = re.sub(r"\n\s+", "\n", own).strip()
        # Names, addresses and paths may contain any of the words below.
        words = re.sub(r"'[^'\n]*'", "''", own)
        if "No space left on device" in words or "database or disk is full" in words:
            path = next(iter(re.findall(r"'(/[^'\n]*)'", own)), SystemLayout.MOUNT)
            full: Hint = (
                (HintCode.PRUNE_SYSTEM,)
                if is_below(path, SystemLayout.MOUNT)
                else (HintCode.FREE_SPACE, path)
            )
            return PhaseError(own, full)
        if NIX_DATABASE_ERROR.search(words):
            return PhaseError(
                "the volume's Nix database cannot be used: " + own, (HintCode.CLEAR_SYSTEM,)
            )
        if "hash mismatch in file downloaded from '%s'" % self.requested["url"] in own:
            return PhaseError(own, (HintCode.NIX_PAIR,))
        if _UNREACHED.search(words):
            return PhaseError(own, (HintCode.CHECK_NIX_NETWORK,))
        return PhaseError(own)

    def build_log(self, derivation: str) -> str:
        """Return all output of a build, from Nix's own log."""
        argv = ["nix-store", "--read-log", derivation]
        code, _, out = run_tool(self.job.termination, argv, dict(os.environ, NIX_REMOTE="local"))
        return out if code == 0 else ""

    def access_error(self, error: OSError) -> tuple[str, Hint | None]:
        """Return why this job cannot use the volume, and a hint.

        A job cannot change what is mounted at /nix, so `on_cache_trouble` does not apply.
        """
        names = ", ".join(self.names[:5])
        hint = (HintCode.OWN_NIX,)
        if error.errno == errno.EROFS:
            return "the system volume is read-only and does not hold %s" % names, hint
        if error.errno in (errno.EACCES, errno.EPERM):
            owner = os.stat(SystemLayout.MOUNT).st_uid
            return (
                "the system volume belongs to user %d, and this job (user %d) may not use %s"
                % (owner, os.getuid(), error.filename)
            ), hint  # fmt: skip
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the system volume is full", (HintCode.PRUNE_SYSTEM,)
        return "%s: %s" % (error.filename, error.strerror), None


def unknown_packages(
    unknown: list[dict[str, Any]], names_by_set: dict[str, list[str]]
) -> tuple[str, Hint | None]:
    """Return what is wrong with the names, and a hint with similar names of the same sets."""
    import difflib

    problems = []
    near: list[str] = []
    for one in unknown[:10]:
        name = one["name"]
        if "above" not in one:
            problems.append("%s is not a package; it may contain packages: %s.NAME" % (name, name))
            continue
        problems.append("there is no package called %s" % name)
        names = names_by_set[one["above"]]
        before, dot, last = name.rpartition(".")
        same = [other for other in names if other.lower() == last.lower()]
        close = difflib.get_close_matches(last, names, 3)
        near += [before + dot + other for other in dict.fromkeys([*same, *close])]
    if len(unknown) > 10:
        problems.append("and %d more" % (len(unknown) - 10))
    if near:
        return "; ".join(problems), (HintCode.DID_YOU_MEAN, ", ".join(near[:6]))
    return "; ".join(problems), (HintCode.NIXPKGS_NAMES,)
