"""The rights that stoke needs in a namespace: checked by `stoke doctor`, granted by `stoke setup
argo`."""

from __future__ import annotations

from dataclasses import dataclass

from stoke.config.model import ArgoConfig

ARGO = "argoproj.io"


@dataclass(frozen=True)
class Right:
    """Verbs on one resource. `without` says what fails without them; None means that nothing works."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    without: str | None = None


USER = (
    Right(ARGO, "workflows", ("create", "get", "list", "watch", "patch", "delete")),
    Right("", "pods", ("get", "list", "watch")),
    Right("", "pods/log", ("get",)),
    Right("", "pods", ("delete",), "stopping a job takes 10 seconds longer"),
    Right(
        "",
        "pods/exec",
        ("create", "get"),
        "stoke shell and stoke exec enter no job, and no files are copied into and out of workspaces",
    ),
    Right(
        "",
        "configmaps",
        ("create", "get", "list", "patch"),
        "code and files beyond about 60 KB are refused, caches of nodes are not recorded, and "
        "a long index.ca_bundle is sent with every job",
    ),
    Right("", "configmaps", ("delete",), "workspaces on nodes cannot be removed"),
    Right("", "secrets", ("create",), "only secrets that are already in the cluster can be used"),
    Right(
        "",
        "secrets",
        ("delete",),
        "a job with secrets keeps them, and its workflow, for a minute after its end",
    ),
    Right(
        "",
        "events",
        ("list",),
        "the time to pull an image counts as start, and a second run of the code may go unnoticed",
    ),
)
SCHEDULES = (
    Right(
        ARGO,
        "cronworkflows",
        ("create", "get", "list", "patch", "delete"),
        "stoke schedule cannot run jobs here",
    ),
    Right(
        "",
        "secrets",
        ("patch",),
        "a schedule with secrets cannot be removed while one of its jobs runs",
    ),
)
CLAIMS = Right(
    "",
    "persistentvolumeclaims",
    ("get", "list", "create"),
    "an administrator has to create the claims",
)
DELETE_CLAIMS = Right(
    "", "persistentvolumeclaims", ("delete",), "workspaces in claims cannot be removed"
)
TEMPLATES = Right(
    ARGO, "workflowtemplates", ("get",), "doctor cannot check whether the templates exist"
)
"""Needed with `argo.by_template`."""
EXECUTOR = Right(ARGO, "workflowtaskresults", ("create", "patch"))
"""For the service account: Argo's containers in a pod report the result with it."""


def of_user(argo: ArgoConfig) -> tuple[Right, ...]:
    """Return the rights of a user who submits jobs, by the configuration."""
    claims = (CLAIMS, DELETE_CLAIMS) if argo.cache in ("claim", "shared-claim") else ()
    # By template, there are no schedules.
    return (*USER, *claims, *((TEMPLATES,) if argo.by_template else SCHEDULES))


def rules(rights: tuple[Right, ...]) -> list[dict[str, list[str]]]:
    """Return the rights as the rules of a Role."""
    return [
        {"apiGroups": [one.group], "resources": [one.resource], "verbs": list(one.verbs)}
        for one in rights
    ]
