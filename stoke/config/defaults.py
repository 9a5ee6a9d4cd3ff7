"""Fill in what a request leaves open from the configuration and the submitting machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.request.spec import IndexSettings, JobSpec, make_spec
from stoke.request.surroundings import take_in
from stoke.request.variables import expanded


def with_defaults(
    spec: JobSpec, config: Config, project: tuple[str, Mapping[str, Any]] | None = None
) -> JobSpec:
    """Return `spec` with the configured scope, index and Nix settings where it names none, and with
    what it takes from the submitting machine (`stoke.request.surroundings`).

    `project` has uv's settings of the request's project, and the file that they are in.
    """
    index = _index(spec.index, config.index)
    if spec.uv is None:
        index = _with_variables(index)
    taken = take_in(spec, project=project)
    changes: dict[str, Any] = {"index": index}
    if "uv" in taken:
        changes["uv"] = taken.pop("uv")
    spec = with_changes(spec, **taken)
    if "scope" not in spec.model_fields_set:
        changes["scope"] = config.scope
    if spec.system and spec.nix is None:
        changes["nix"] = config.nix
    check_notify(spec, config)
    if config.notify.always and config.notify.is_set:
        changes["notify"] = True
    return spec.model_copy(update=changes)


def check_notify(spec: JobSpec, config: Config) -> None:
    """Raise `RequestError` for a job that is to tell of its end, if nobody is named to be told."""
    if spec.notify and not config.notify.is_set:
        raise RequestError(
            "notify",
            "the configuration names no program and no web address to tell",
            "name one: export STOKE_NOTIFY__WEBHOOK=https://hooks.example.org/jobs",
        )


def _index(asked: IndexSettings, configured: IndexSettings) -> IndexSettings:
    # Configured credentials are for the configured indexes; another address must never see them.
    own_addresses = asked.url is not None or bool(asked.extra)
    return IndexSettings(
        url=asked.url or configured.url,
        extra=asked.extra or configured.extra,
        credentials=asked.credentials or (None if own_addresses else configured.credentials),
        proxy=asked.proxy or configured.proxy,
        ca_bundle=asked.ca_bundle or configured.ca_bundle,
    )


def _with_variables(index: IndexSettings) -> IndexSettings:
    """Return `index` with the values of the variables that its addresses name."""
    if "${" not in f"{index.url} {index.extra}":
        return index
    fields = index.model_dump()
    fields["url"] = fields["url"] and expanded(fields["url"], "index.url")
    fields["extra"] = [expanded(url, "index.extra") for url in fields["extra"]]
    return make_spec({"code": "pass", "index": fields}).index


def with_packages(spec: JobSpec, packages: Sequence[str]) -> JobSpec:
    """Return `spec` with more packages. What its lockfile pins keeps its version and hashes, and the
    other packages are resolved to fit."""
    if not packages:
        return spec
    dependencies = [*spec.dependencies, *packages]
    return with_changes(spec, dependencies=dependencies, locked=False if spec.locked else None)


def with_changes(spec: JobSpec, **fields: Any) -> JobSpec:
    """Return `spec` with other values for some fields, checked again. Fields that are None stay."""
    changes = {name: value for name, value in fields.items() if value is not None}
    if not changes:
        return spec
    return make_spec({**spec.model_dump(exclude_unset=True), **changes})
