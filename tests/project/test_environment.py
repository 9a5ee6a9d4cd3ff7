"""What a project adds to a request: packages, a Python, import path, and virtual metadata."""

from __future__ import annotations

import configparser
import importlib.metadata
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stoke.errors import RequestError
from stoke.project import lockfile
from stoke.project.choices import ProjectEnvironment, ProjectOptions
from stoke.project.environment import project_environment
from stoke.project.uv_workspace import workspace_root
from stoke.project.version import UNKNOWN
from stoke.request.requirements_text import parse_requirements
from tests import projects
from tests.package_index import PackageIndex


def environment(
    root: Path, folder: str = ".", requested: tuple[str, ...] = (), **options: Any
) -> ProjectEnvironment:
    chosen = ProjectOptions(**options)
    return project_environment(str(root), str((root / folder).resolve()), chosen, requested)


def pinned(text: str) -> list[str]:
    return [entry.text for entry in parse_requirements(text).requirements]


def refusal(root: Path, folder: str = ".", **options: Any) -> RequestError:
    with pytest.raises(RequestError) as refused:
        environment(root, folder, **options)
    return refused.value


def project(folder: Path, text: str, files: Mapping[str, str] | None = None) -> Path:
    head = '[project]\nname = "app"\n' if "[project]" not in text else ""
    version = 'version = "1"\n' if head and "dynamic" not in text else ""
    return projects.write(folder, {"pyproject.toml": head + version + text, **(files or {})})


# --- packages ------------------------------------------------------------------------------------


def test_a_lockfile_pins_the_dependencies_and_the_group_dev(
    tmp_path: Path, index: PackageIndex
) -> None:
    found = environment(projects.library(tmp_path / "p", index))
    assert pinned(found.requirements) == ["alpha==2.0", "beta==1.0", "gamma==1.0"]
    assert (found.locked, found.python, found.dependencies) == (True, ">=3.9", ())
    assert all(entry.hashes for entry in parse_requirements(found.requirements).requirements)


@pytest.mark.parametrize(
    ("options", "packages"),
    [
        ({"dev": False}, ["alpha==2.0", "beta==1.0"]),
        ({"extras": ("fast",), "dev": False}, ["alpha==2.0", "beta==1.0", "delta==1.0"]),
        ({"groups": ("docs",)}, ["alpha==2.0", "beta==1.0", "delta==1.0", "gamma==1.0"]),
    ],
)
def test_groups_and_extras_are_chosen_as_uv_does(
    tmp_path: Path, index: PackageIndex, options: dict[str, Any], packages: list[str]
) -> None:
    root = projects.library(tmp_path / "p", index)
    assert pinned(environment(root, **options).requirements) == packages
    (root / "uv.lock").unlink()
    asked = environment(root, **options).dependencies
    assert {text.partition("=")[0].rstrip(">") for text in asked} == {
        text.partition("=")[0] for text in packages
    } - {"alpha"}


@pytest.mark.parametrize("locked", [True, False])
def test_an_unknown_group_or_extra_is_refused_with_those_that_exist(
    tmp_path: Path, index: PackageIndex, locked: bool
) -> None:
    root = projects.library(tmp_path / "p", index, locked)
    assert "has no group 'nope'; it has dev, docs" in refusal(root, groups=("nope",)).why
    assert "has no extra 'nope'; it has fast" in refusal(root, extras=("nope",)).why


def test_a_stale_lockfile_is_an_error_and_its_hint_updates_it(
    tmp_path: Path, index: PackageIndex
) -> None:
    root = projects.library(tmp_path / "p", index)
    file = root / "pyproject.toml"
    file.write_text(file.read_text().replace('["beta>=1"]', '["beta>=1", "delta"]'))
    error = refusal(root)
    assert error.field.endswith("uv.lock") and "does not match" in error.why
    command = (error.hint or "").removeprefix("update it: ")
    assert command.startswith("uv lock")
    subprocess.run([sys.executable, "-m", *shlex.split(command)], check=True)
    assert "delta==1.0" in pinned(environment(root).requirements)


def test_uv_exports_again_only_after_a_relevant_change(
    tmp_path: Path, index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = projects.library(tmp_path / "p", index)
    calls: list[list[str]] = []
    ask = lockfile._run_uv

    def counted(arguments: list[str], *rest: Any) -> Any:
        calls.append(arguments)
        return ask(arguments, *rest)

    monkeypatch.setattr(lockfile, "_run_uv", counted)
    first = environment(root)
    (root / "src/word_count/cli.py").write_text("def main(): print('edited')\n")
    assert environment(root).requirements == first.requirements
    assert len(calls) == 1
    environment(root, dev=False)
    assert len(calls) == 2
    (root / "pyproject.toml").write_text((root / "pyproject.toml").read_text() + "\n# note\n")
    environment(root)
    assert len(calls) == 3


def test_a_code_edit_changes_nothing_of_the_environment(
    tmp_path: Path, index: PackageIndex
) -> None:
    root = projects.library(tmp_path / "p", index)
    before = environment(root)
    (root / "src/word_count/new.py").write_text("x = 1\n")
    assert environment(root) == before


def test_a_change_of_any_member_exports_again(
    tmp_path: Path, index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = projects.workspace(tmp_path / "p", index)
    environment(root, "packages/core")
    server = root / "packages/server/pyproject.toml"
    server.write_text(server.read_text().replace('"shop-core"]', '"shop-core", "delta"]'))
    assert "does not match" in refusal(root, "packages/core").why
    monkeypatch.setenv("UV_FROZEN", "1")
    assert "does not match" in refusal(root, "packages/core").why


def test_a_pyproject_that_never_ends_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pyproject.toml")
    assert refusal(tmp_path).why == "is no regular file"
    (tmp_path / "pyproject.toml").unlink()
    (tmp_path / "pyproject.toml").symlink_to("/dev/zero")
    assert refusal(tmp_path).why == "is no regular file"


def test_a_damaged_record_of_uvs_answer_is_not_used(tmp_path: Path, index: PackageIndex) -> None:
    root = projects.library(tmp_path / "p", index)
    expected = environment(root).requirements
    from stoke.files.paths import state_dir

    (stored,) = (state_dir() / "locks").iterdir()
    for text in ("", "[]", '{"key": "x", "text": "evil==1"}', '{"key": 3}'):
        stored.write_text(text)
        assert environment(root).requirements == expected


def test_a_pylock_is_used_without_the_project_that_it_names(
    tmp_path: Path, index: PackageIndex
) -> None:
    root = projects.library(tmp_path / "p", index)
    from uv import find_uv_bin

    command = [
        find_uv_bin(),
        "export",
        "-q",
        "--format",
        "pylock.toml",
        "--output-file",
        "pylock.toml",
    ]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    (root / "uv.lock").unlink()
    assert 'directory = { path = "."' in (root / "pylock.toml").read_text()
    found = environment(root)
    assert pinned(found.requirements) == ["alpha==2.0", "beta==1.0", "gamma==1.0"]
    assert found.locked
    assert "without a choice of groups" in refusal(root, groups=("docs",)).why


def test_packages_of_the_request_are_added_to_the_locked_ones(
    tmp_path: Path, index: PackageIndex
) -> None:
    found = environment(projects.library(tmp_path / "p", index))
    alone = found.added_to({"code": "1"})
    assert alone["locked"] is True and alone["python"] == ">=3.9"
    more = found.added_to({"code": "1", "dependencies": ["delta"], "python": "3.12"})
    assert "locked" not in more and more["python"] == "3.12"
    assert (more["dependencies"], more["requirements"]) == (["delta"], found.requirements)
    own = {"code": "1", "requirements": "x==1 --hash=sha256:0", "locked": True, "python": "3.12"}
    assert found.added_to(own) == own


def test_requirements_txt_without_pyproject_is_suggested_and_not_installed(tmp_path: Path) -> None:
    found = environment(projects.flat(tmp_path / "p"))
    assert (found.dependencies, found.requirements, found.import_path) == ((), "", ())
    (note,) = found.notes
    assert "requirements.txt is not used" in note and "-r " in note


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("dependencies = 'beta'", "project.dependencies must be a list of texts"),
        ("requires-python = '3.x'", "requires-python"),
        ("dependencies = [", "is not TOML"),
        ("[dependency-groups]\ndev = [{ include-group = 'dev' }]", "includes itself"),
        ("[dependency-groups]\ndev = [{ include-group = 'no' }]", "there is no such group"),
        ("[project.scripts]\n'../x' = 'a:b'", "project.scripts"),
        ("[project.scripts]\nx = 'import os'", "project.scripts"),
        ("[project.scripts]\nx = 'a:b; import os'", "project.scripts"),
        ("dynamic = ['dependencies']\n[build-system]\nbuild-backend='h'", "are dynamic"),
    ],
)
def test_errors_in_a_pyproject_name_the_file(tmp_path: Path, text: str, what: str) -> None:
    error = refusal(project(tmp_path / "p", f'[project]\nname = "app"\n{text}\n'))
    assert error.field.endswith("pyproject.toml") and what in error.why


def test_dependencies_that_setuptools_reads_from_files(tmp_path: Path) -> None:
    root = project(
        tmp_path / "p",
        'dynamic = ["dependencies", "version"]\n[build-system]\nrequires = ["setuptools"]\n'
        '[tool.setuptools.dynamic]\ndependencies = { file = ["needs.txt"] }\n',
        {"needs.txt": "beta>=1\n# note\ndelta\n"},
    )
    assert environment(root).dependencies == ("beta>=1", "delta")


# --- workspaces and path sources -----------------------------------------------------------------


@pytest.mark.parametrize("locked", [True, False])
def test_members_of_a_workspace_are_source_and_their_dependencies_packages(
    tmp_path: Path, index: PackageIndex, locked: bool
) -> None:
    root = projects.workspace(tmp_path / "p", index, locked)
    whole, server = environment(root), environment(root, "packages/server")
    packages = pinned(whole.requirements) if locked else list(whole.dependencies)
    assert [text.partition("=")[0] for text in packages] == ["alpha", "gamma"]
    assert whole.import_path[0] == ".stoke/site"
    assert set(whole.import_path[1:]) == {".", "packages/server", "packages/core/src"}
    assert {"packages/server", "packages/core/src", ".stoke/site"} == set(server.import_path)
    assert server.python == ">=3.9"
    scripts = {name for name in whole.extra_files if name.startswith(".stoke/bin/")}
    assert scripts == {".stoke/bin/shop-core", ".stoke/bin/shop-server"}
    core = environment(root, "packages/core")
    packages = pinned(core.requirements) if locked else list(core.dependencies)
    assert [text.partition("=")[0] for text in packages] == ["alpha"]


def test_a_workspace_in_a_folder_that_all_can_write_to_is_none(
    tmp_path: Path, index: PackageIndex
) -> None:
    root = projects.workspace(tmp_path / "p", index, locked=False)
    member = str(root / "packages/core")
    assert workspace_root(member) == str(root)
    root.chmod(0o1777)
    assert workspace_root(member) is None
    assert workspace_root(str(root / "packages/attic")) is None


def test_a_path_dependency_inside_is_source_and_one_outside_is_refused(tmp_path: Path) -> None:
    root = project(
        tmp_path / "p",
        'dependencies = ["lib[more]", "other"]\n[tool.uv.sources]\nlib = { path = "vendor/lib" }\n',
        {
            "vendor/lib/pyproject.toml": '[project]\nname = "lib"\nversion = "2"\n'
            'dependencies = ["beta"]\n[project.optional-dependencies]\nmore = ["delta"]\n'
        },
    )
    found = environment(root)
    assert found.dependencies == ("beta", "delta", "other")
    assert "vendor/lib" in found.import_path
    text = (root / "pyproject.toml").read_text()
    for path in ("../lib", "vendor/link"):
        projects.write(tmp_path / "lib", {"pyproject.toml": '[project]\nname = "lib"\n'})
        if not (root / "vendor/link").exists():
            (root / "vendor/link").symlink_to(tmp_path / "lib")
        (root / "pyproject.toml").write_text(text.replace("vendor/lib", path))
        error = refusal(root)
        assert "lib comes from" in error.why and "outside the project's folder" in error.why


def test_git_and_url_sources_become_addresses(tmp_path: Path) -> None:
    root = project(
        tmp_path / "p",
        "dependencies = [\"a[x]>=1; python_version < '4'\", 'b', 'c']\n[tool.uv.sources]\n"
        "a = { git = 'https://g.example/a', tag = 'v1', subdirectory = 'py' }\n"
        "b = { url = 'https://u.example/b-1.tar.gz', marker = \"os_name == 'posix'\" }\n"
        "c = { index = 'ours' }\n[[tool.uv.index]]\nname = 'ours'\nurl = 'https://i.example/simple'\n",
    )
    found = environment(root)
    assert found.dependencies == (
        "a[x] @ git+https://g.example/a@v1#subdirectory=py ; (python_version < '4')",
        "b @ https://u.example/b-1.tar.gz ; (os_name == 'posix')",
        "c",
    )
    assert found.uv["sources"] == {"c": {"index": "ours"}}


# --- the project as if it were installed ---------------------------------------------------------


def placed(root: Path, found: ProjectEnvironment) -> list[str]:
    """Writes the virtual files, and returns the import path of a job."""
    for name, data in found.extra_files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return [str(root / name) for name in found.import_path]


def test_the_project_has_metadata_entry_points_and_scripts(
    tmp_path: Path, index: PackageIndex
) -> None:
    root = projects.library(tmp_path / "p", index)
    found = environment(root)
    path = placed(root, found)
    assert found.import_path == (".stoke/site", "src") and found.programs == (".stoke/bin",)
    (info,) = importlib.metadata.distributions(name="word-count", path=path)
    assert (info.metadata["Name"], info.version) == ("Word-Count", "1.4.0")
    assert info.requires == ["beta>=1", "delta ; extra == 'fast'"]
    points = {(point.group, point.name): point.value for point in info.entry_points}
    assert points == {
        ("console_scripts", "wordcount"): "word_count.cli:main",
        ("word_count.plugins", "plain"): "word_count.plugins:Plain",
    }
    assert "word_count-1.4.0.dist-info/METADATA" in map(str, info.files or ())
    (root / "src/beta.py").write_text("version = 'x'\n")
    done = subprocess.run(
        [sys.executable, root / ".stoke/bin/wordcount", "a"],
        env={"PYTHONPATH": ":".join(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "wordcount 1.4.0 x 3 a\n"


def test_a_project_that_the_request_installs_is_not_source(
    tmp_path: Path, index: PackageIndex
) -> None:
    root = projects.library(tmp_path / "p", index)
    found = environment(root, requested=("word_count @ git+https://g.example/w",))
    assert (found.import_path, found.programs, found.extra_files) == ((), (), {})
    assert environment(root, requested=("beta",)).import_path


def test_a_project_that_is_no_package_is_not_installed(tmp_path: Path) -> None:
    root = project(
        tmp_path / "p",
        'dependencies = ["beta"]\n[project.scripts]\nx = "a:b"\n[tool.uv]\npackage = false\n',
    )
    found = environment(root)
    assert found.dependencies == ("beta",)
    assert (found.import_path, found.programs, found.extra_files) == ((), (), {})


@pytest.mark.parametrize(
    ("text", "files", "expected"),
    [
        ("", {"app/__init__.py": ""}, "."),
        ("", {"src/app/__init__.py": ""}, "src"),
        ("", {"src/__init__.py": ""}, "."),
        ("[tool.setuptools.packages.find]\nwhere = ['lib']", {"lib/app/__init__.py": ""}, "lib"),
        ("[tool.setuptools]\npackage-dir = { '' = 'py' }", {"py/app.py": ""}, "py"),
        (
            "[tool.hatch.build.targets.wheel]\npackages = ['code/app']",
            {"code/app/__init__.py": "", "src/x.py": ""},
            "code",
        ),
        ("[tool.hatch.build.targets.wheel]\npackages = ['app']", {"app.py": "", "src/x": ""}, "."),
        ("[tool.maturin]\npython-source = 'python'", {"python/app/__init__.py": ""}, "python"),
        ("[tool.pdm.build]\npackage-dir = '../elsewhere'", {"app.py": ""}, "."),
        (
            "[build-system]\nbuild-backend = 'uv_build'\n[tool.uv.build-backend]\nmodule-root = ''",
            {"app/__init__.py": "", "src/x.py": ""},
            ".",
        ),
    ],
)
def test_modules_are_found_where_the_build_backend_finds_them(
    tmp_path: Path, text: str, files: dict[str, str], expected: str
) -> None:
    found = environment(project(tmp_path / "p", f"{text}\n", files))
    assert found.import_path == (".stoke/site", expected)


@pytest.mark.parametrize(
    ("text", "files", "version"),
    [
        ("[tool.setuptools.dynamic]\nversion = { attr = 'app.__version__' }",
         {"src/app/__init__.py": "import os\n__version__: str = '3.1'\n"}, "3.1"),
        ("[tool.setuptools.dynamic]\nversion = { attr = 'app.about.VERSION' }",
         {"app/about.py": "VERSION = (3, 2)\n"}, "3.2"),
        ("[tool.setuptools.dynamic]\nversion = { file = 'VERSION' }", {"VERSION": "3.3\n"}, "3.3"),
        ("[tool.hatch.version]\npath = 'app/__about__.py'",
         {"app/__about__.py": "__version__ = 'v3.4'"}, "3.4"),
        ("[tool.hatch.version]\npath = 'a.txt'\npattern = 'is (?P<version>.*)$'",
         {"a.txt": "x\nis 3.5\n"}, "3.5"),
        ("[tool.pdm.version]\nsource = 'file'\npath = 'app.py'", {"app.py": "__version__ = \"3.6\""},
         "3.6"),
        ("[build-system]\nbuild-backend = 'flit_core.buildapi'",
         {"app.py": "__version__ = '3.7'"}, "3.7"),
        ("[tool.setuptools_scm]\nversion_file = 'app/_version.py'",
         {"app/_version.py": "__version__ = version = '3.8.dev1+g1'"}, "3.8.dev1+g1"),
        ("", {"app.egg-info/PKG-INFO": "Metadata-Version: 2.1\nVersion: 3.9\n"}, "3.9"),
        ("", {".venv/lib/python3.12/site-packages/app-4.0.dist-info/METADATA": ""}, "4.0"),
        ("[tool.hatch.version]\nsource = 'vcs'", {}, None),
        ("[tool.setuptools.dynamic]\nversion = { attr = 'app.v' }", {"app.py": "v = f()"}, None),
        ("[tool.setuptools.dynamic]\nversion = { file = '../VERSION' }", {"../VERSION": "6"}, None),
        ("[tool.setuptools.dynamic]\nversion = { file = 'VERSION' }", {"VERSION": "1/../2"}, None),
    ],
)  # fmt: skip
def test_a_dynamic_version_is_read_where_that_is_cheap(
    tmp_path: Path, text: str, files: dict[str, str], version: str | None
) -> None:
    root = project(tmp_path / "p", f'dynamic = ["version"]\n{text}\n', files)
    found = environment(root)
    info = next(iter(importlib.metadata.distributions(name="app", path=placed(root, found))))
    assert info.version == (version or UNKNOWN)
    assert any("version of app is unknown" in note for note in found.notes) == (version is None)


def test_a_version_file_that_was_never_built_is_generated(tmp_path: Path) -> None:
    root = project(
        tmp_path / "p",
        'dynamic = ["version"]\n[tool.hatch.build.hooks.vcs]\nversion-file = "src/app/_version.py"\n',
        {"src/app/__init__.py": "from app._version import __version__\n"},
    )
    found = environment(root)
    values: dict[str, str] = {}
    exec(found.extra_files["src/app/_version.py"], values)
    assert values["__version__"] == UNKNOWN


@pytest.mark.parametrize(
    ("text", "files", "compiled"),
    [
        ("build-backend = 'maturin'", {}, True),
        ("build-backend = 'mesonpy'", {}, True),
        ("build-backend = 'scikit_build_core.build'", {}, True),
        ("requires = ['setuptools', 'Cython>=3']", {}, True),
        ("requires = ['setuptools']", {"setup.py": "setup(ext_modules=[])"}, True),
        ("build-backend = 'hatchling.build'\n[tool.hatch.build.targets.wheel.hooks.mypyc]\na = 1", {},
         True),
        ("requires = ['setuptools']", {"setup.py": "setup()"}, False),
        ("build-backend = 'hatchling.build'", {}, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["src", "."])
def test_packages_with_modules_to_compile_are_found(
    tmp_path: Path, text: str, files: dict[str, str], compiled: bool, place: str
) -> None:
    files = {**files, f"{place}/app/__init__.py": ""}
    found = environment(project(tmp_path / "p", f"[build-system]\n{text}\n", files))
    assert found.compiled == (((".", place),) if compiled else ())


def test_hostile_names_stay_inside_their_files(tmp_path: Path) -> None:
    root = project(
        tmp_path / "p",
        '[project]\nname = "app"\nversion = "1/../../x"\ndescription = "a\\nName: evil"\n'
        'dependencies = ["b\\nVersion: 9"]\n'
        '[project.entry-points."g"]\n"n" = "x\\n[console_scripts]"\n',
    )
    found = environment(root)
    assert all(".." not in name and name.startswith(".stoke/") for name in found.extra_files)
    (info,) = importlib.metadata.distributions(name="app", path=placed(root, found))
    assert (info.metadata["Name"], info.version) == ("app", UNKNOWN)
    points = configparser.ConfigParser()
    points.read_string(info.read_text("entry_points.txt") or "")
    assert points.sections() == ["g"]
