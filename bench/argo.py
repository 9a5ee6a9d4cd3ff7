"""A cluster with Argo Workflows for benchmarks: an administrator's access, and stoke's backend."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from backends.argo import ArgoBackend
from backends.argo.cluster import Cluster
from stoke.backend.api import Delivery
from stoke.cache.keys import request_hash, request_keys
from stoke.config.model import ArgoConfig, Config
from stoke.delivery.payload import make_payload, runner_source
from stoke.request.sources import request_from_options

Cache = Literal["hostpath", "none"]
NONCE = "0123456789abcdef"
KUBECONFIG = os.environ.get("STOKE_TEST_KUBECONFIG")
NAMESPACE = os.environ.get("STOKE_TEST_NAMESPACE")
IMAGE = os.environ.get("STOKE_TEST_IMAGE", "stoke-test/full:latest")
SERVICE_ACCOUNT = os.environ.get("STOKE_TEST_SERVICE_ACCOUNT")


@contextmanager
def argo_cluster() -> Iterator[tuple[Cluster, str]]:
    """Give (cluster, the name of a new namespace, which is deleted at the end)."""
    if KUBECONFIG is None:
        sys.exit("this benchmark needs a cluster with Argo: export STOKE_TEST_KUBECONFIG=FILE")
    name = f"stoke-bench-{secrets.token_hex(4)}"
    cluster = Cluster(context=None, namespace=name, kubeconfig=KUBECONFIG)
    cluster.request("POST", "/api/v1/namespaces", body={"metadata": {"name": name}})
    try:
        yield cluster, name
    finally:
        cluster.request("DELETE", f"/api/v1/namespaces/{name}")
        cluster.close()


def argo_backend(namespace: str | None, cache: Cache = "none") -> ArgoBackend:
    return ArgoBackend(
        Config(
            argo=ArgoConfig(
                kubeconfig=KUBECONFIG,
                namespace=namespace,
                image=IMAGE,
                service_account=SERVICE_ACCOUNT,
                cache=cache,
            )
        )
    )


def delivery(code: str, job_id: str) -> Delivery:
    spec = request_from_options(code=code, image=IMAGE, use_cache=False)
    payload = make_payload(
        spec, request_keys(spec), nonce=NONCE, program="main.py", lock_ttl=3600, upgrade=False
    )
    public_spec = spec.model_dump_json().encode()
    return Delivery(
        job_id, spec, runner_source(spec), NONCE, payload, public_spec, request_hash(spec)
    )
