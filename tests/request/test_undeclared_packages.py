"""Imports of code, and the packages that provide them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.request.import_names import PACKAGES
from stoke.request.requirement import check_requirement
from stoke.request.sources import request_from_options
from stoke.request.undeclared_packages import (
    MODULE,
    imported_modules,
    missing_package,
    package_of,
    undeclared,
    undeclared_packages,
)


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import numpy.linalg as la, os", ["numpy.linalg", "os"]),
        ("from . import a\nfrom .b import c\nfrom __future__ import annotations", ["__future__"]),
        ("def f():\n    import late\nasync def g():\n    from later import x", ["late", "later"]),
        ("try:\n    import fast\nexcept ImportError:\n    import slow\nelse:\n    import x", ["x"]),
        ("try:\n    import a\nexcept (OSError, ModuleNotFoundError): pass", []),
        ("try:\n    import a\nexcept: pass", []),
        ("try:\n    import a\nexcept Exception: pass\nfinally:\n    import b", ["b"]),
        ("try:\n    import a\nexcept ValueError: pass", ["a"]),
        ("try:\n    import a\nfinally: pass", ["a"]),
        ("import typing\nif typing.TYPE_CHECKING:\n    import a\nelse:\n    import b", ["typing", "b"]),
        ("from contextlib import suppress\nwith suppress(ImportError):\n    import a", ["contextlib"]),
        ("from google.cloud import storage", ["google.cloud.storage"]),
        ("import (", []),
        ("\ufeffimport a", ["a"]),
        ("'import a'", []),
        ("# import\n" + "(" * 10000, []),
    ],
)  # fmt: skip
def test_the_imports_that_code_needs(code: str, modules: list[str]) -> None:
    assert imported_modules(code) == modules


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("cv2", "opencv-python-headless"),
        ("sklearn.svm", "scikit-learn"),
        ("yaml", "pyyaml"),
        ("PIL.Image", "pillow"),
        ("google.protobuf.message", "protobuf"),
        ("google.cloud.storage", "google-cloud-storage"),
        ("numpy", "numpy"),
    ],
)
def test_a_package_in_the_table_is_certain(module: str, package: str) -> None:
    found = package_of(module)
    assert found is not None and (found.name, found.guessed) == (package, False)


def test_a_package_outside_the_table_is_a_guess() -> None:
    found = package_of("cow_say.moo")
    assert found is not None and (found.name, found.guessed) == ("cow-say", True)


@pytest.mark.parametrize(
    "module",
    [
        "google", "google.unheard_of", "azure", "os", "tomllib", "asyncore", "pip", "utils", "Config",
        "_private", "ab", "", "a b", "x; rm", "../x", "\u0430lpha", "x.", ".x", "-r", "a" * 101,
    ],
)  # fmt: skip
def test_what_is_unclear_is_not_proposed(module: str) -> None:
    assert package_of(module) is None


def test_every_package_in_the_table_is_a_requirement() -> None:
    for module, package in PACKAGES.items():
        assert MODULE.fullmatch(module)
        check_requirement(package, "table")


@given(st.text())
def test_no_module_name_makes_anything_but_a_plain_package_name(module: str) -> None:
    found = package_of(module)
    if found is not None and found.guessed:
        assert set(found.name) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"
        )
        assert found.name[0] != "-"


def test_modules_of_the_project_are_not_proposed(tmp_path: Path) -> None:
    script = tmp_path / "project" / "jobs"
    (script / "beside").mkdir(parents=True)
    (script / "another.py").write_text("")
    (tmp_path / "project" / "pyproject.toml").write_text("")
    (tmp_path / "project" / "src" / "theproject").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    code = "import beside, another, theproject, outside, yaml"
    assert [one.name for one in undeclared_packages(code, script)] == ["outside", "pyyaml"]
    assert missing_package(code, "another", script) is None
    assert missing_package(code, "theproject", script) is None


def test_only_code_without_packages_gets_a_proposal(tmp_path: Path) -> None:
    code = "import numpy"
    assert undeclared(request_from_options(code=code), tmp_path)
    for fields in (
        {"dependencies": ["six"]},
        {"requirements": "six"},
        {"image": "with/numpy"},
        {"code": "# /// script\n# dependencies = ['six']\n# ///\nimport numpy"},
    ):
        assert not undeclared(request_from_options(**{"code": code, **fields}), tmp_path)


@pytest.mark.parametrize(
    ("code", "module", "package"),
    [
        ("import pandas", "openpyxl", "openpyxl"),
        ("import pandas", "unknown_helper", None),
        ("import unknown_helper", "unknown_helper", "unknown-helper"),
        ("import numpy", "numpy.nothing", None),
        ("from google.cloud import storage", "google", "google-cloud-storage"),
        ("from google.cloud import storage", "google.cloud", "google-cloud-storage"),
        ("import distutils.core", "distutils", "setuptools"),
        ("import google.unheard", "google", None),
    ],
)
def test_the_package_of_a_missing_module(
    tmp_path: Path, code: str, module: str, package: str | None
) -> None:
    found = missing_package(code, module, tmp_path)
    assert (found and found.name) == package
