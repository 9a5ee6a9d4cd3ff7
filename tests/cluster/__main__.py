"""`python -m tests.cluster up DIR [--image NAME]... [--second NAME]... [--argo standin|none]`: starts a
cluster whose state is kept in DIR, and prints NAME=value lines for the environment of the tests. Where
it runs already it prints the same again. `down DIR` removes every trace of it.

Needs root, and STOKE_TEST_KUBERNETES and STOKE_TEST_EXECUTOR (.ci/kubernetes prints both).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.cluster.cluster import ClusterError, down, up


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    starting = verbs.add_parser("up", help="start a cluster")
    starting.add_argument("folder", type=Path)
    starting.add_argument(
        "--image", action="append", default=[], help="an image of the Docker engine for the node"
    )
    starting.add_argument(
        "--second", action="append", help="an image for a second node, which the cluster then has"
    )
    starting.add_argument("--argo", choices=["standin", "none"], default="standin")
    stopping = verbs.add_parser("down", help="stop it and remove every trace of it")
    stopping.add_argument("folder", type=Path)
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    try:
        if asked.verb == "up":
            print(up(folder, wanted=asked.image, argo=asked.argo, second=asked.second), end="")
        else:
            down(folder)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
