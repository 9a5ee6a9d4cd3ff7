"""Which files of a project travel."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoke.errors import RequestError
from stoke.project import rules
from stoke.project.rules import ByGit, ByPatterns
from stoke.project.secret_names import looks_secret
from tests.project.trees import git, listed, make_tree, paths, reasons


@pytest.fixture(params=["git", "patterns"])
def project(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A project in a repository, with git and on a machine without it."""
    root = make_tree(tmp_path / "project")
    git(root, "init")
    if request.param == "patterns":
        monkeypatch.setenv("PATH", str(tmp_path))
    expected = ByGit if request.param == "git" else ByPatterns
    make_tree(root, "kept.py")
    assert isinstance(rules.rules_of(str(root)), expected)
    return root


def test_git_ignore_rules_hold_in_every_folder(project: Path) -> None:
    make_tree(project, "a.log", "sub/b.log", "sub/keep.log", "build/x/y", "sub/only/here", "here")
    (project / ".gitignore").write_text("*.log\nbuild/\n")
    (project / "sub/.gitignore").write_text("!keep.log\nonly/\n")
    (project / ".git/info/exclude").write_text("here\n")
    assert paths(project) == {"kept.py", ".gitignore", "sub/.gitignore", "sub/keep.log"}
    assert reasons(project) == {
        "a.log": rules.BY_GIT, "sub/b.log": rules.BY_GIT, "build/": rules.BY_GIT,
        "sub/only/": rules.BY_GIT, "here": rules.BY_GIT,
    }  # fmt: skip


def test_the_ignore_file_for_all_repositories_counts(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    make_tree(tmp_path / "config", "git/ignore", **{"git/ignore": "*.swp\n"})
    make_tree(project, "kept.py.swp")
    assert paths(project) == {"kept.py"}


def test_a_pattern_matches_bytes_as_in_git(project: Path) -> None:
    make_tree(project, "é", "éé", "a", "bö")
    (project / ".gitignore").write_text("?\néé\nb??\n")
    assert paths(project) == {"kept.py", ".gitignore", "é"}


def test_stokeignore_leaves_out_and_brings_in(project: Path) -> None:
    make_tree(project, "docs/a.md", "docs/b.md", "data/big.bin", "data/small.csv", "deep/er/notes")
    (project / ".gitignore").write_text("data/\n")
    (project / ".stokeignore").write_text("docs/*\n!b.md\n!data/*.csv\n")
    (project / "deep/er/.stokeignore").write_text("notes\n")
    assert paths(project) == {
        "kept.py", ".gitignore", ".stokeignore", "docs/b.md", "data/small.csv",
        "deep/er/.stokeignore",
    }  # fmt: skip
    assert reasons(project)["docs/a.md"] == rules.STOKEIGNORE


def test_options_win_over_all_rules(project: Path) -> None:
    make_tree(
        project, "data/a.csv", "data/b.bin", "node_modules/m/x.js", "docs/a.md", "docs/deep/b"
    )
    (project / ".gitignore").write_text("data/\n")
    (project / ".stokeignore").write_text("docs/\n")
    base = {"kept.py", ".gitignore", ".stokeignore"}
    assert paths(project, include=("*.csv",)) == base | {"data/a.csv"}
    assert paths(project, include=("data",)) == base | {"data/a.csv", "data/b.bin"}
    assert paths(project, include=("node_modules/m",)) == base | {"node_modules/m/x.js"}
    assert paths(project, include=("docs/deep/",)) == base | {"docs/deep/b"}
    assert paths(project, exclude=("*.py", ".*")) == set()
    assert paths(project, include=("kept.py",), exclude=("*",)) == {"kept.py"}


def test_folders_of_tools_never_travel(project: Path) -> None:
    make_tree(
        project, "__pycache__/a.pyc", "web/node_modules/a/b.js", ".mypy_cache/x", "env/pyvenv.cfg",
        "env/lib/a.py", ".venv/x", ".DS_Store", "sub/__pycache__/",
    )  # fmt: skip
    assert paths(project) == {"kept.py"}
    assert reasons(project)["env/"] == rules.VENV


def test_secrets_travel_only_by_name(project: Path) -> None:
    make_tree(
        project, ".env", ".env.local", ".env.example", "certs/site.pem", "id_ed25519",
        "id_ed25519.pub", "id_map.csv", ".aws/credentials", "key.py",
    )  # fmt: skip
    harmless = {"kept.py", ".env.example", "id_ed25519.pub", "id_map.csv", "key.py"}
    assert paths(project) == harmless
    assert paths(project, include=("*", "certs/")) == harmless
    assert paths(project, include=(".env",)) == harmless | {".env"}
    assert paths(project, include=("/certs/*.pem",)) == harmless | {"certs/site.pem"}
    (project / ".stokeignore").write_text("!.env.local\n")
    assert paths(project) == harmless | {".env.local", ".stokeignore"}
    (note,) = listed(project).notes()
    assert note == (
        "4 files that look like secrets were left out: .aws/credentials, .env, certs/site.pem and 1 "
        "more",
        "include it by its name: --include /.aws/credentials",
    )


def test_the_hint_about_a_secret_brings_it_in(project: Path) -> None:
    make_tree(project, "we [ird]/.env ")
    make_tree(project, "we [ird]/*.pem")
    ((_, hint),) = listed(project).notes()
    import shlex

    (pattern,) = shlex.split(hint.partition("--include ")[2])
    assert "we [ird]/*.pem" in paths(project, include=(pattern,))


def test_repositories_inside_travel_as_files(project: Path, tmp_path: Path) -> None:
    if not os.environ["PATH"].startswith(str(tmp_path)):
        library = make_tree(tmp_path / "library", "lib.py", "lib.log", ".gitignore")
        (library / ".gitignore").write_text("*.log\n")
        git(library, "init")
        git(library, "add", "-A")
        git(library, "commit", "-m", "x")
        git(project, "submodule", "add", str(library), "vendored/library")
        (project / "vendored/library/junk.log").write_text("x")
        clone = tmp_path / "project/clone"
        git(project, "clone", str(library), str(clone))
        make_tree(clone, "new.py", "new.log")
    else:
        make_tree(
            project, "clone/.git/HEAD", "clone/lib.py", "vendored/library/.git", "clone/a.log"
        )
        make_tree(project, "vendored/library/lib.py", "clone/new.py")
        (project / "clone/.gitignore").write_text("*.log\n")
    found = paths(project)
    assert {"clone/lib.py", "clone/new.py", "vendored/library/lib.py"} <= found
    assert not any(path.endswith(".log") or ".git/" in path for path in found), found


def test_empty_folders_are_kept_unless_ignored(project: Path) -> None:
    make_tree(project, "out/", "deep/er/est/", "build/", "full/of/nothing/but.log")
    (project / ".gitignore").write_text("build/\n*.log\n")
    found = paths(project)
    assert {"out/", "deep/er/est/"} <= found
    assert "build/" not in found


def test_a_project_in_an_ignored_folder_travels(tmp_path: Path) -> None:
    outer = make_tree(tmp_path / "outer", "sandbox/project/main.py", "sandbox/project/a.log")
    git(outer, "init")
    (outer / ".gitignore").write_text("sandbox/\n")
    assert paths(outer / "sandbox/project") == {"main.py", "a.log"}


def test_the_script_travels_even_if_it_is_ignored(project: Path) -> None:
    make_tree(project, "scratch/try.py", "scratch/helper.py", "scratch/other.py")
    (project / ".gitignore").write_text("scratch/\n")
    assert paths(project, script="scratch/try.py", code="import helper") >= {
        "scratch/try.py", "scratch/helper.py",
    }  # fmt: skip
    assert "scratch/other.py" not in paths(project, script="scratch/try.py", code="import helper")


def test_a_hook_of_another_repository_changes_nothing(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_tree(tmp_path / "other", "other.py")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "index"))
    assert paths(project) == {"kept.py"}


def test_no_program_of_the_repository_runs(project: Path, tmp_path: Path) -> None:
    if os.environ["PATH"].startswith(str(tmp_path)):
        pytest.skip("without git nothing reads its settings")
    program = tmp_path / "monitor"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    git(project, "config", "core.fsmonitor", str(program))
    assert "kept.py" in paths(project)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("pattern", ["", "  ", "/", "!", "[z-a]", "\\"])
@pytest.mark.parametrize("field", ["include", "exclude"])
def test_a_wrong_pattern_is_refused(tmp_path: Path, pattern: str, field: str) -> None:
    with pytest.raises(RequestError, match=field):
        listed(make_tree(tmp_path / "p", "a"), "pass", **{field: (pattern,)})


def test_a_wrong_pattern_in_a_file_matches_nothing(project: Path) -> None:
    (project / ".gitignore").write_bytes(b"[z-a]\n\\\n*.log\n\xff\n")
    (project / ".stokeignore").write_text("!\n[z-a]\n*.tmp\n")
    make_tree(project, "a.log", "a.tmp")
    assert paths(project) == {"kept.py", ".gitignore", ".stokeignore"}


WORDS = st.sampled_from(["a", "b", "ab", "x.py", "c d", "é", "-n"])
PATHS = st.lists(WORDS, min_size=1, max_size=3).map("/".join)
FILES = st.lists(PATHS, min_size=1, max_size=8)
PIECES = st.sampled_from(["a", "b", "ab", "x.py", "*", "**", "?", "a*", "*.py", "[ab]", "c d", "é"])
LINES = st.builds(
    lambda negated, anchored, pieces, folder: negated + anchored + "/".join(pieces) + folder,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "/"]),
    st.lists(PIECES, min_size=1, max_size=3),
    st.sampled_from(["", "/"]),
)


@settings(max_examples=60)
@given(
    st.lists(PATHS, min_size=1, max_size=8),
    st.lists(LINES, max_size=4),
    st.lists(LINES, max_size=2),
)
def test_the_rules_read_here_are_those_of_git(
    files: list[str], upper: list[str], lower: list[str]
) -> None:
    """The files of a folder without git's help are those that git lists, which is the other way."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "p")
        root.mkdir()
        for file in files:
            try:
                make_tree(root, file)
            except OSError:  # The file is a folder already, or the other way round.
                continue
        (root / ".gitignore").write_text("\n".join(upper) + "\n")
        if (root / "a").is_dir():
            (root / "a/.gitignore").write_text("\n".join(lower) + "\n")
        ours = {path for path in paths(root) if not path.endswith("/")}
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        words = ["git", "ls-files", "-z", "--others", "--exclude-standard"]
        theirs = subprocess.run(words, cwd=root, check=True, capture_output=True).stdout
        expected = {path for path in os.fsdecode(theirs).split("\0") if path}
        assert ours == {path for path in expected if not path.endswith("/")}


@pytest.mark.parametrize(
    "path",
    [
        ".env", "a/.ENV", ".env.production", ".envrc", "x.pem", "x.KEY", "id_rsa", "id_work",
        ".netrc", ".pypirc", "a.p12", "kubeconfig", ".kube/config", ".aws/config",
        ".docker/config.json", "service-account-prod.json", ".ssh/known_hosts",
    ],
)  # fmt: skip
def test_names_of_secrets(path: str) -> None:
    assert looks_secret(path)


@pytest.mark.parametrize(
    "path",
    [
        "env", "environment.yml", ".env.example", "id_rsa.pub", "id_map.csv", "identity", "keys.py",
        "monkey", "config", "docker/config.json", "tests/data.json", "credentials.py",
    ],
)  # fmt: skip
def test_names_of_no_secrets(path: str) -> None:
    assert not looks_secret(path)
