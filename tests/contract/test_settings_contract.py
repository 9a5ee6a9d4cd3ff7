"""uv's settings decide on every backend, in each phase, and are part of the keys."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stoke.cache.volumes import Housekeeper
from stoke.config.defaults import with_defaults
from stoke.history.database import History
from stoke.jobs.prepare import prepare
from stoke.jobs.request import Request
from stoke.jobs.submit import submit
from tests.contract.conftest import DOCKER
from tests.lab import Lab, Outcome
from tests.package_index import PackageIndex

PASSWORD = "correct-horse-battery"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the settings of the person who runs the tests."""
    for name in os.environ:
        if name.startswith("UV_") and name != "UV_HTTP_RETRIES":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "system"))


def request(lab: Lab, code: str, **fields: Any) -> Request:
    """A request as the commands make it, with what it takes in."""
    asked = lab.request(code, **fields)
    return replace(asked, spec=with_defaults(asked.spec, lab.config))


def run(lab: Lab, code: str, **fields: Any) -> Outcome:
    return finish(lab, request(lab, code, **fields))


def finish(lab: Lab, asked: Request) -> Outcome:
    with History() as history:
        job = submit(prepare(asked, lab.backend, history), history)
    return lab.finish(job)


def lock_of(lab: Lab, asked: Request) -> str:
    done = finish(lab, replace(asked, lock_only=True))
    assert done.job.exit_code == 0, done
    return done.stdout.decode()


@pytest.fixture
def serve(lab: Lab) -> Iterator[Callable[..., PackageIndex]]:
    served: list[PackageIndex] = []

    def start(*wheels: tuple[str, str], password: str | None = None, size: int = 0) -> PackageIndex:
        served.append(PackageIndex(lab.address, password))
        for name, version in wheels:
            served[-1].add(name, version, size=size)
        return served[-1]

    yield start
    for one in served:
        one.stop()


Serve = Callable[..., PackageIndex]


def test_a_private_package_comes_from_its_own_index_only(lab: Lab, serve: Serve) -> None:
    """The public index has a newer release of one name, and another file of the same release."""
    public = serve(("inner", "9.0"), ("twin", "1.0"), ("plain", "1.0"))
    public.add("outer", "1.0", ["inner"])
    private = serve(("inner", "1.0"), ("twin", "1.0"), size=20)
    shows = (
        "import inner, outer, os, plain, twin\nprint(inner.version, os.listdir(twin.__path__[0]))"
    )
    script = f"""# /// script
# dependencies = ["inner", "outer", "plain", "twin"]
# [tool.uv.sources]
# inner = {{ index = "corp" }}
# twin = {{ index = "corp" }}
# [[tool.uv.index]]
# name = "corp"
# url = "{private.url}"
# explicit = true
# [[tool.uv.index]]
# url = "{public.url}"
# default = true
# ///
{shows}"""
    asked = request(lab, script)
    done = finish(lab, asked)
    assert done.stdout.startswith(b"1.0 ") and b"ballast.bin" in done.stdout, done

    lock = lock_of(lab, asked)
    given = run(lab, shows, requirements=lock, locked=True, use_cache=False)
    assert given.stdout == done.stdout, given
    assert not [path for path in public.requests if path.startswith("/files/inner")]

    kept = run(lab, shows, requirements=lock, locked=True)
    with History() as history:
        assert Housekeeper(history, 60).lock_of(lab.backend, kept.job) == lock


def test_a_login_is_used_and_not_stored(
    lab: Lab, serve: Serve, monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    index = serve(("alpha", "1.0"), password=f"ada:{PASSWORD}")
    login = f"http://ada:{PASSWORD}@"
    monkeypatch.setenv("UV_INDEX_URL", index.url.replace("http://", login))
    shows = "import alpha; print(alpha.version)"
    first = request(lab, shows, dependencies=["alpha"])
    done = finish(lab, first)
    assert done.stdout == b"1.0\n", done
    assert PASSWORD not in lock_of(lab, first)

    monkeypatch.delenv("UV_INDEX_URL")
    monkeypatch.setenv("TOKEN", f"ada:{PASSWORD}")
    by_name = f"alpha @ {index.file_url('alpha', '1.0')}".replace("http://", "http://${TOKEN}@")
    done = run(lab, shows, dependencies=[by_name])
    assert done.stdout == b"1.0\n", done
    # uv's error shows the address.
    wrong = by_name.replace("alpha-1.0", "alpha-7.0")
    failed = run(lab, shows, requirements=wrong)
    assert failed.job.exit_code == 125
    assert PASSWORD not in str(failed.events)
    holding = [path for path in own_home.rglob("*") if path.is_file()]
    assert not [path for path in holding if PASSWORD.encode() in path.read_bytes()]


def test_options_of_a_requirements_file_act_on_the_installation(lab: Lab, serve: Serve) -> None:
    index = serve(("gamma", "1.0"))
    index.add_sdist("gamma", "1.0")
    shows = "import gamma; print(gamma.version)"
    links = f"--no-index\n-f {index.links_url}\n"
    assert run(lab, shows, requirements=f"{links}gamma\n").stdout == b"1.0\n"

    asked = request(lab, shows, requirements=f"{links}--no-binary gamma\ngamma\n")
    done = finish(lab, asked)
    assert done.stdout == b"source\n", done
    # uv gives no hash for a package from a page of links, so this is no complete lock.
    given = run(lab, shows, requirements=lock_of(lab, asked), use_cache=False)
    assert given.stdout == b"source\n", given


def test_a_lock_whose_packages_all_have_their_own_index_gives_no_warning(
    lab: Lab, serve: Serve
) -> None:
    public, private = serve(), serve(("alpha", "1.0"))
    shows = "import alpha; print(alpha.version)"
    text = f"-i {public.url}\n--extra-index-url {private.url}\nalpha\n"
    lock = lock_of(lab, request(lab, shows, requirements=text))
    done = run(lab, shows, requirements=lock, locked=True, use_cache=False)
    assert done.stdout == b"1.0\n", done
    with History() as history:
        assert history.notes(done.job.id) == []


def test_a_lock_from_elsewhere_finds_its_files_in_any_index(lab: Lab, serve: Serve) -> None:
    """The first index knows the name, but not the version whose hash the lock has."""
    private, public = serve(("alpha", "1.0")), serve()
    digest = public.add("alpha", "2.0")
    lock = f"-i {public.url}\n--extra-index-url {private.url}\nalpha==2.0 --hash=sha256:{digest}\n"
    done = run(lab, "import alpha; print(alpha.version)", requirements=lock, locked=True)
    assert done.stdout == b"2.0\n", done


def test_settings_of_a_build_have_environments_of_their_own(lab: Lab, serve: Serve) -> None:
    index = serve()
    index.add_sdist("gamma", "1.0")
    script = """# /// script
# dependencies = ["gamma"]
# [tool.uv]
# config-settings = { flag = "%s" }
# ///
import gamma; print(gamma.version)"""
    lab.defaults["index"]["url"] = index.url
    for flag in ("one", "two", "one"):
        done = run(lab, script % flag)
        assert done.stdout.decode() == f"{flag}\n", done


def test_a_setting_does_not_outlive_its_file(lab: Lab, serve: Serve, tmp_path: Path) -> None:
    index = serve(("alpha", "1.0"), ("alpha", "2.0"))
    index.add("beta", "1.0", ["alpha"])
    lab.defaults["index"]["url"] = index.url
    tries = "try:\n    import alpha; print(alpha.version)\nexcept ImportError:\n    print('alone')"
    file = tmp_path / "config/uv/uv.toml"
    file.parent.mkdir(parents=True)
    file.write_text("[pip]\nno-deps = true\n")
    recorded = request(lab, tries, dependencies=["beta"])
    assert finish(lab, recorded).stdout == b"alone\n"
    file.unlink()
    assert run(lab, tries, dependencies=["beta"]).stdout == b"2.0\n"
    assert finish(lab, recorded).stdout == b"alone\n", "what is recorded decides"


def test_files_and_variables_are_read_for_each_request(
    lab: Lab, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = serve(("alpha", "1.0"), ("alpha", "2.0"), ("alpha", "3.0"))
    lab.defaults["index"]["url"] = index.url
    shows = "import alpha; print(alpha.version)"
    constraints = tmp_path / "constraints.txt"
    monkeypatch.setenv("UV_CONSTRAINT", str(constraints))
    for bound, version in (("<2", "1.0"), ("<3", "2.0")):
        constraints.write_text(f"alpha{bound}\n")
        assert run(lab, shows, dependencies=["alpha"]).stdout.decode() == f"{version}\n"
    monkeypatch.delenv("UV_CONSTRAINT")
    address = index.file_url("alpha", "${STAGE}")
    for version in ("1.0", "3.0"):
        monkeypatch.setenv("STAGE", version)
        done = run(lab, shows, requirements=f"alpha @ {address}\n")
        assert done.stdout.decode() == f"{version}\n", done


def test_only_lines_that_apply_are_packages(lab: Lab, serve: Serve) -> None:
    index = serve()
    hashes = {(name, version): index.add(name, version) for name in ("alpha",) for version in "12"}
    hashes["beta", "1"] = index.add("beta", "1")
    lab.defaults["index"]["url"] = index.url
    lock = "".join(
        f"{name}=={version} ; {marker} --hash=sha256:{hashes[name, version]}\n"
        for name, version, marker in (
            ("alpha", "1", "python_version < '3'"),
            ("alpha", "2", "python_version >= '3'"),
            ("beta", "1", "sys_platform == 'win32'"),
        )
    )
    for hit in (False, True):
        done = run(lab, "import alpha; print(alpha.version)", requirements=lock, locked=True)
        assert done.stdout == b"2\n", done
        python = done.phase("python")
        assert (python.hit, python.packages) == (hit, 1)
        with History() as history:
            assert list(history.packages(done.job.id).get("python", {})) in (["alpha==2"], [])
    counts = done.job.predicted.counts.get("python")
    assert done.job.predicted.python == "hit" and counts is None


@pytest.mark.parametrize("lab", [DOCKER], indirect=True)
def test_an_index_that_only_the_image_names_is_not_asked(
    lab: Lab, serve: Serve, docker_engine: Any, docker_image: str
) -> None:
    """The same request would resolve differently elsewhere; a note names the setting to use."""
    ignored, used = serve(("alpha", "2.0")), serve(("alpha", "1.0"))
    image = f"stoke-test/{lab.scope}:index"
    container = docker_engine.create_container(docker_image, "true")
    variable = f"ENV UV_INDEX_URL={ignored.url}"
    docker_engine.commit(container["Id"], image, changes=[variable])
    docker_engine.remove_container(container["Id"], force=True)
    try:
        links = f"--no-index\n-f {used.links_url}\nalpha\n"
        done = run(lab, "import alpha; print(alpha.version)", requirements=links, image=image)
    finally:
        docker_engine.remove_image(image)
    assert done.stdout == b"1.0\n" and ignored.requests == [], done
    notes = [str(event["text"]) for event in done.events if event["event"] == "note"]
    (note,) = [text for text in notes if "UV_INDEX_URL" in text]
    assert "--index" in note
