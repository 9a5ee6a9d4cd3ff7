"""The checks of `stoke doctor` for Docker."""

from __future__ import annotations

from typing import Any

from backends.common.names import PUBLIC_IMAGE
from backends.docker.container import FALLBACK_LOG_DRIVERS, LOG_DRIVER, has_own_network
from backends.docker.engine import Engine, is_local, product_of
from backends.docker.image import NAME_ONE, OUR_IMAGE, has_image
from stoke.backend.api import CheckResult
from stoke.config.model import Config
from stoke.delivery.network import environment_proxies
from stoke.errors import EngineError


def check_engine(engine: Engine, config: Config) -> list[CheckResult]:
    """Check the connection first; if it fails, return only that result."""
    try:
        address = engine.address()
        with engine.call("ask the engine about itself") as api:
            info: dict[str, Any] = api.info()
            product = product_of(api.version())
            version = f"{product} {info['ServerVersion']} at {address.url} ({address.source})"
            storage = f"{info['DockerRootDir']} ({info['Driver']})"
            log_driver, limits, gpus = _log_driver(info), _limits(info), check_gpus(info)
        return [
            CheckResult("engine", True, version),
            _image(engine, config),
            log_driver,
            limits,
            gpus,
            CheckResult("storage", True, storage),
            *_proxies(config, address.url),
        ]
    except EngineError as error:
        return [CheckResult("engine", False, error.what, error.hint)]


def _image(engine: Engine, config: Config) -> CheckResult:
    wanted = config.docker.image
    for image in [wanted] if wanted else [OUR_IMAGE, PUBLIC_IMAGE]:
        if has_image(engine, image):
            return CheckResult("image", True, image)
    absent = wanted or PUBLIC_IMAGE
    # Not a failure: the first job pulls the image if the engine can reach its registry.
    return CheckResult("image", True, f"{absent} is missing; the first job pulls it, or {NAME_ONE}")


def fallback_log_driver(engine: Engine) -> str:
    """Return the log driver for an engine that lacks `LOG_DRIVER`."""
    with engine.call("ask the engine about itself") as api:
        return _fallback(api.info())


def check_gpus(info: dict[str, Any]) -> CheckResult:
    """Check what `--gpu` needs. An engine reports neither how many GPUs its machine has nor whether it
    has another way to give them to containers (CDI, nvidia's hook)."""
    if "nvidia" in (info.get("Runtimes") or {}):
        return CheckResult("gpus", True, "the engine has the nvidia runtime, for jobs with --gpu")
    return CheckResult(
        "gpus",
        None,
        "unknown: the engine lists no nvidia runtime, which jobs with --gpu usually need",
    )


def _log_drivers(info: dict[str, Any]) -> list[str]:
    return info["Plugins"].get("Log") or []


def _fallback(info: dict[str, Any]) -> str:
    known = _log_drivers(info)
    return next((one for one in FALLBACK_LOG_DRIVERS if one in known), FALLBACK_LOG_DRIVERS[-1])


def _log_driver(info: dict[str, Any]) -> CheckResult:
    if LOG_DRIVER in _log_drivers(info):
        return CheckResult("log driver", True, LOG_DRIVER)
    driver = _fallback(info)
    if driver != "json-file":
        return CheckResult("log driver", True, f"{driver} (this engine has no {LOG_DRIVER!r})")
    return CheckResult(
        "log driver",
        False,
        f"this engine has no {LOG_DRIVER!r}; logs go through {driver!r}, which replaces "
        "bytes that are not UTF-8",
        f"use an engine that has the log driver {LOG_DRIVER!r}",
    )


def _proxies(config: Config, url: str) -> list[CheckResult]:
    """Check which of this machine's proxies containers use, if it has any."""
    from stoke.remote.common.network import is_loopback

    near_only = is_loopback if has_own_network(config) else lambda _: False
    if config.index.proxy and not near_only(config.index.proxy):
        return [CheckResult("proxy", True, f"{config.index.proxy}, which containers use as well")]
    found = {name.upper(): at for name, at in environment_proxies().items() if name != "no_proxy"}
    if config.index.proxy:
        found = {"index.proxy": config.index.proxy}
    if not found:
        return []
    if not config.index.proxy and not is_local(url):
        detail = "containers of a remote engine do not use this machine's proxies"
        return [CheckResult("proxy", True, f"{detail}; set index.proxy to use one there")]
    near = [name for name, at in found.items() if near_only(at)]
    if not near:
        return [CheckResult("proxy", True, f"containers use this machine's ({', '.join(found)})")]
    return [
        CheckResult(
            "proxy",
            False,
            f"{', '.join(near)}: a proxy on this machine's loopback address, which containers cannot "
            "reach",
            "have it listen on the address of Docker's bridge, and: "
            "export STOKE_INDEX__PROXY=http://BRIDGE:PORT",
        )
    ]


def _limits(info: dict[str, Any]) -> CheckResult:
    # Podman's own keys; the ones below describe the kernel and not Podman's rights.
    if info.get("Rootless") and str(info.get("CgroupVersion")) == "1":
        return CheckResult(
            "limits",
            False,
            "rootless Podman cannot limit anything on cgroups v1",
            "use cgroups v2 (kernel: systemd.unified_cgroup_hierarchy=1), or run Podman as root",
        )
    kinds = {
        "memory": "MemoryLimit",
        "swap": "SwapLimit",
        "cpu": "CpuCfsQuota",
        "processes": "PidsLimit",
    }
    missing = [name for name, key in kinds.items() if not info.get(key)]
    if not missing:
        return CheckResult("limits", True, ", ".join(kinds))
    return CheckResult(
        "limits",
        False,
        f"this engine cannot limit: {', '.join(missing)}",
        "turn these controllers on in the kernel: cgroup_enable=memory swapaccount=1",
    )
