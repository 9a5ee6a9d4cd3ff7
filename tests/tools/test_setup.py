"""`tools/setup` on machines that are set up for pip and for nothing else."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from uv import find_uv_bin

from tests.network import Authority
from tests.package_index import PackageIndex

TOOLS = Path(__file__).parents[2] / "tools"
PYTHON = getattr(sys, "_base_executable", None) or sys.executable
VERSION = "0.0.1"

# Builds a wheel with one program and no dependency, as an editable install asks for it.
BACKEND = """
import base64, hashlib, os, zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "stoke_small-1.dist-info"
    files = {
        "stoke_small.py": "def main(): print('it runs')\\n",
        name + "/METADATA": "Metadata-Version: 2.1\\nName: stoke-small\\nVersion: 1\\n",
        name + "/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
        name + "/entry_points.txt": "[console_scripts]\\nstoke = stoke_small:main\\n",
    }
    files[name + "/RECORD"] = "".join(path + ",,\\n" for path in [*files, name + "/RECORD"])
    wheel = "stoke_small-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, wheel), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel
"""


@pytest.fixture(scope="module")
def uv_wheel() -> bytes:
    """The uv of this environment as a wheel again, under a version of its own."""
    info, out = f"uv-{VERSION}.dist-info", io.BytesIO()
    files = {
        f"uv-{VERSION}.data/scripts/uv": Path(find_uv_bin()).read_bytes(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: uv\nVersion: {VERSION}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = []
    with zipfile.ZipFile(out, "w") as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append(f"{path},sha256={digest},{len(data)}\n")
        archive.writestr(f"{info}/RECORD", "".join(rows) + f"{info}/RECORD,,\n")
    return out.getvalue()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki", "127.0.0.1")


@pytest.fixture
def index(authority: Authority) -> Iterator[PackageIndex]:
    """A company's: with a login, and a certificate that only pip.conf says how to trust."""
    index = PackageIndex("127.0.0.1", password="ada:secret", tls=authority.tls)
    yield index
    index.stop()


@pytest.fixture
def checkout(tmp_path: Path, index: PackageIndex, uv_wheel: bytes) -> Path:
    folder = tmp_path / "checkout"
    (folder / "tools").mkdir(parents=True)
    for name in ("setup", "uv_like_pip.py"):
        shutil.copy(TOOLS / name, folder / "tools")
    (folder / "backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "stoke-small"\nversion = "1"\n'
    )
    (folder / "requirements").mkdir()
    alpha, uv = (
        index.add("alpha", "1.0"),
        index.add_file(f"uv-{VERSION}-py3-none-any.whl", uv_wheel),
    )
    (folder / "requirements/run.txt").write_text(
        f"alpha==1.0 \\\n    --hash=sha256:{alpha}\nuv=={VERSION} \\\n    --hash=sha256:{uv}\n"
    )
    return folder


@pytest.fixture
def machine(
    tmp_path: Path, index: PackageIndex, authority: Authority, checkout: Path
) -> dict[str, str]:
    """An environment in which only pip's settings name the index."""
    (tmp_path / "pip.conf").write_text(
        f"[global]\nindex-url = https://ada:secret@{index.host}/simple\ncert = {authority.file}\n"
        "[install]\nfind-links = /not/there\n"
    )
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
        "PYTHON": PYTHON,
        "UV_HTTP_RETRIES": "0",
    }


def setup(checkout: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = [str(checkout / "tools/setup"), "run"]
    return subprocess.run(words, env=env, cwd="/", capture_output=True, text=True)


def test_pips_own_settings_are_enough_and_uv_does_the_rest(
    checkout: Path, machine: dict[str, str], index: PackageIndex
) -> None:
    done = setup(checkout, machine)
    assert done.returncode == 0, done.stderr
    assert "trying pip" not in done.stderr, done.stderr
    program = checkout / ".venv/bin/stoke"
    assert subprocess.run([program], capture_output=True, text=True).stdout == "it runs\n"
    (installer,) = checkout.glob(".venv/lib/*/site-packages/alpha-1.0.dist-info/INSTALLER")
    assert installer.read_text() == "uv"
    asked = len(index.requests)
    assert setup(checkout, machine).stderr == "" and len(index.requests) == asked


def test_where_uv_cannot_pip_does_it(checkout: Path, machine: dict[str, str]) -> None:
    done = setup(checkout, {**machine, "UV_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    assert "setup: uv failed; trying pip" in done.stderr
    (installer,) = checkout.glob(".venv/lib/*/site-packages/alpha-1.0.dist-info/INSTALLER")
    assert installer.read_text().strip() == "pip"


def test_a_package_with_another_hash_is_refused_by_both(
    checkout: Path, machine: dict[str, str]
) -> None:
    lock = checkout / "requirements/run.txt"
    right = lock.read_text().split("sha256:")[1][:64]
    lock.write_text(lock.read_text().replace(right, "0" * 64))
    done = setup(checkout, machine)
    assert done.returncode == 1
    assert "pip could not install requirements/run.txt" in done.stderr
    assert not (checkout / ".venv/.run").exists()


def test_a_python_that_is_too_old_is_told_of_one_that_is_not(
    checkout: Path, machine: dict[str, str], tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    old = programs / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.9.2\nexit 1\n')
    fit = programs / "python3.12"
    fit.write_text("#!/bin/sh\nexit 0\n")
    for program in (old, fit):
        program.chmod(0o755)
    env = {**machine, "PATH": f"{programs}:/usr/bin:/bin", "PYTHON": "python3"}
    done = setup(checkout, env)
    assert done.returncode == 1
    assert "python3 is Python 3.9.2; stoke needs Python 3.11 or later" in done.stderr
    assert f"make PYTHON={fit} setup" in done.stderr or "python3.14" in done.stderr


def test_a_python_without_wheels_yet_is_named(
    checkout: Path, machine: dict[str, str], tmp_path: Path
) -> None:
    """A stand-in that is a real Python but says that it is 3.99, and has no wheel for alpha."""
    new = tmp_path / "python3.99"
    new.write_text(
        "#!/bin/sh\n"
        'case "$*" in *version_info\\[:2\\]*) exit 1;; -V) echo Python 3.99.0; exit;; esac\n'
        f'exec {PYTHON} "$@"\n'
    )
    new.chmod(0o755)
    (checkout / "requirements/run.txt").write_text("gone==1.0 --hash=sha256:" + "0" * 64 + "\n")
    done = setup(checkout, {**machine, "PYTHON": str(new)})
    assert done.returncode == 1
    assert "are made for Python 3.11 to 3." in done.stderr and "Python 3.99.0" in done.stderr


@pytest.mark.parametrize(
    ("pip", "uv"),
    [
        ({"PIP_INDEX_URL": "https://one.test/simple"}, "UV_DEFAULT_INDEX=https://one.test/simple"),
        (
            {"PIP_EXTRA_INDEX_URL": "https://a.test/ https://b.test/"},
            "UV_EXTRA_INDEX_URL=https://a.test/ https://b.test/",
        ),
        ({"PIP_TRUSTED_HOST": "a.test b.test"}, "UV_INSECURE_HOST=a.test b.test"),
        ({"PIP_CERT": "/its/ca.pem"}, "SSL_CERT_FILE=/its/ca.pem"),
        ({"PIP_PROXY": "http://p.test:1"}, "HTTPS_PROXY=http://p.test:1"),
        ({"PIP_FIND_LINKS": "/usr /not/there"}, "UV_FIND_LINKS=/usr"),
        ({"PIP_NO_INDEX": "1"}, "UV_NO_INDEX=true"),
        ({}, "UV_SYSTEM_CERTS=true"),
        (
            {"PIP_INDEX_URL": "https://one.test/", "UV_DEFAULT_INDEX": "https://two.test/"},
            "UV_DEFAULT_INDEX=https://two.test/",
        ),
    ],
)
def test_what_uv_is_told(tmp_path: Path, pip: dict[str, str], uv: str) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull, **pip}
    words = [PYTHON, str(TOOLS / "uv_like_pip.py"), shutil.which("env") or "env"]
    told = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout
    assert uv in told.splitlines()
