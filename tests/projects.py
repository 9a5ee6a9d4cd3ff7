"""Projects in the shapes that well-known public ones have, with packages of the tests' own index.

`flat` is an application of modules and a requirements.txt, as many older web applications are;
`library` has the src layout, package data, entry points and a uv.lock, as libraries built with
hatchling are; `workspace` has a root application and two members, one of which needs the other.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from uv import find_uv_bin

from tests.package_index import PackageIndex


def add_packages(index: PackageIndex) -> None:
    """alpha 1.0 and 2.0, beta 1.0 (needs alpha), gamma and delta 1.0."""
    index.add("alpha", "1.0")
    index.add("alpha", "2.0")
    index.add("beta", "1.0", ["alpha"])
    index.add("gamma", "1.0")
    index.add("delta", "1.0")


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def lock(folder: Path) -> None:
    """Makes or updates uv.lock, as a user does."""
    subprocess.run(
        [find_uv_bin(), "lock", "--quiet", "--project", str(folder)],
        check=True,
        env={**os.environ, "UV_CACHE_DIR": str(folder.parent / "uv-cache"), "UV_NO_CONFIG": "0"},
    )


def flat(folder: Path) -> Path:
    return write(
        folder,
        {
            "requirements.txt": "alpha<2\n",
            "app.py": "import models\nfrom views.pages import index\n\nprint(index(), models.NAME)\n",
            "models.py": "import alpha\n\nNAME = 'alpha ' + alpha.version\n",
            "views/__init__.py": "",
            "views/pages.py": "import os.path\n\nHERE = os.path.dirname(__file__)\n\n\ndef index():\n"
            "    return open(os.path.join(HERE, 'index.html')).read().strip()\n",
            "views/index.html": "<p>hello</p>\n",
            "manage.py": "import sys\n\nprint('manage', *sys.argv[1:])\n",
        },
    )


def library(folder: Path, index: PackageIndex, locked: bool = True) -> Path:
    write(
        folder,
        {
            "pyproject.toml": f"""\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "Word-Count"
version = "1.4.0"
description = "Counts words"
requires-python = ">=3.9"
dependencies = ["beta>=1"]

[project.optional-dependencies]
fast = ["delta"]

[project.scripts]
wordcount = "word_count.cli:main"

[project.entry-points."word_count.plugins"]
plain = "word_count.plugins:Plain"

[dependency-groups]
dev = ["gamma"]
docs = ["delta==1.0", {{ include-group = "dev" }}]

[[tool.uv.index]]
url = "{index.url}"
default = true
""",
            "README.md": "# Word-Count\n",
            "src/word_count/__init__.py": "from importlib.metadata import version\n\n"
            "__version__ = version('word-count')\n",
            "src/word_count/__main__.py": "from word_count.cli import main\n\nmain()\n",
            "src/word_count/cli.py": "import sys\nfrom importlib import resources\n\n\ndef main():\n"
            "    import beta\n    import word_count\n\n"
            "    words = (resources.files(word_count) / 'words.txt').read_text().split()\n"
            "    print('wordcount', word_count.__version__, beta.version, len(words), *sys.argv[1:])\n",
            "src/word_count/plugins.py": "class Plain:\n    name = 'plain'\n",
            "src/word_count/words.txt": "one two three\n",
            "tests/test_words.py": "import word_count\n\n\ndef test_it():\n"
            "    assert word_count.__version__ == '1.4.0'\n",
            "scripts/report.py": "from word_count.cli import main\n\nmain()\n",
        },
    )
    if locked:
        lock(folder)
    return folder


BUILDS = """\
import os, zipfile

def build_wheel(target, config_settings=None, metadata_directory=None):
    if {fails!r}:
        raise SystemExit({fails!r})
    name = "app-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(target, name), "w") as wheel:
        wheel.writestr("app/__init__.py", "WHENCE = 'wheel'")
        wheel.writestr("app/fast.py", "VALUE = 7")
        about = "Metadata-Version: 2.1\\nName: app\\nVersion: 1.0\\n"
        wheel.writestr("app-1.0.dist-info/METADATA", about)
        tags = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("app-1.0.dist-info/WHEEL", tags)
        wheel.writestr("app-1.0.dist-info/RECORD", "")
    return name
"""
"""A build backend that needs no index and no compiler; its wheel has a module that the source lacks."""


def compiled(folder: Path, layout: str, fails: str = "") -> Path:
    source = "src/app" if layout == "src" else "app"
    return write(
        folder,
        {
            "pyproject.toml": """\
[build-system]
requires = []
build-backend = "builds"
backend-path = ["."]

[project]
name = "app"
version = "1.0"

[tool.setuptools-rust]
binding = "none"
""",
            "builds.py": BUILDS.format(fails=fails),
            f"{source}/__init__.py": "WHENCE = 'source'\n",
            "main.py": "import app, app.fast\n\nprint('fast', app.fast.VALUE, app.WHENCE)\n",
        },
    )


def workspace(folder: Path, index: PackageIndex, locked: bool = True) -> Path:
    write(
        folder,
        {
            "pyproject.toml": f"""\
[project]
name = "shop"
version = "0.1"
requires-python = ">=3.9"
dependencies = ["shop-server", "gamma"]

[tool.uv.workspace]
members = ["packages/*"]
exclude = ["packages/attic"]

[tool.uv.sources]
shop-server = {{ workspace = true }}
shop-core = {{ workspace = true }}

[[tool.uv.index]]
url = "{index.url}"
default = true
""",
            "main.py": "import shop_server\n\nprint(shop_server.serve())\n",
            "packages/core/pyproject.toml": """\
[project]
name = "shop-core"
version = "2.5"
dependencies = ["alpha"]

[project.scripts]
shop-core = "shop_core:main"

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
""",
            "packages/core/src/shop_core/__init__.py": "import alpha\n\n__version__ = '2.5'\n\n\n"
            "def main():\n    print('core', alpha.version)\n",
            "packages/server/pyproject.toml": """\
[project]
name = "shop-server"
version = "3.0"
dependencies = ["shop-core"]

[project.scripts]
shop-server = "shop_server:main"

[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
""",
            "packages/server/shop_server/__init__.py": "import shop_core\n\n\ndef serve():\n"
            "    return 'shop ' + shop_core.__version__\n\n\ndef main():\n    print(serve())\n",
            "packages/attic/pyproject.toml": '[project]\nname = "attic"\nversion = "0"\n',
        },
    )
    if locked:
        lock(folder)
    return folder
