"""What stoke does in a namespace, as rights: asked about by `doctor`, given by `setup argo`."""

from __future__ import annotations

from dataclasses import dataclass

from stoke.config.model import ArgoConfig

ARGO = "argoproj.io"


@dataclass(frozen=True)
class Right:
    """Verbs on one resource. `without` says what does not work without them; None: nothing does."""

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
        "configmaps",
        ("create", "get", "list", "patch"),
        "code beyond some 60 KB is refused, and nobody knows which node has which caches",
    ),
    Right("", "secrets", ("create",), "secrets have to be in the cluster already"),
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
        "the time to pull an image counts as start, and code that ran twice while no program looked is "
        "not noticed",
    ),
)
CLAIMS = Right(
    "", "persistentvolumeclaims", ("get", "list", "create"), "somebody else has to make the claims"
)
TEMPLATES = Right(ARGO, "workflowtemplates", ("get",), "nobody can say whether they are there")
"""Where jobs refer to them."""
EXECUTOR = Right(ARGO, "workflowtaskresults", ("create", "patch"))
"""For the service account: without it Argo's part of a pod cannot say how it ended."""


def of_user(argo: ArgoConfig) -> tuple[Right, ...]:
    """What somebody who submits needs, where it is configured so."""
    claims = (CLAIMS,) if argo.cache in ("claim", "shared-claim") else ()
    return (*USER, *claims, *((TEMPLATES,) if argo.by_template else ()))


def rules(rights: tuple[Right, ...]) -> list[dict[str, list[str]]]:
    """As a Role has them."""
    return [
        {"apiGroups": [one.group], "resources": [one.resource], "verbs": list(one.verbs)}
        for one in rights
    ]
