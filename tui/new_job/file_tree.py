"""The tree of the files that travel with a job, and of what is left out, in rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

MOST_OPENED = 300
"""Entries up to which all folders are open at first; of a larger tree only the top is shown."""


@dataclass
class Node:
    """A file, a link, a folder, or what is left out. `path` is relative to the root."""

    path: str
    name: str
    size: int = 0
    files: int = 0
    """Files that travel: 1, or those in a folder."""
    why: str | None = None
    """Why it is left out; None for what travels."""
    target: str | None = None
    """Of a symbolic link."""
    children: dict[str, Node] | None = None
    """Of a folder, by name."""


@dataclass(frozen=True)
class Row:
    depth: int
    node: Node


@dataclass
class FileTree:
    top: Node = field(default_factory=lambda: Node("", "", children={}))
    opened: set[str] = field(default_factory=set)
    """The paths of the folders whose contents are shown."""

    def rows(self) -> list[Row]:
        """Return what is shown: folders first, then files, then what is left out, each by name."""
        found: list[Row] = []
        left = [Row(0, node) for node in _sorted(self.top)]
        while left:
            row = left.pop()
            found.append(row)
            if row.node.path in self.opened:
                left += [Row(row.depth + 1, node) for node in _sorted(row.node)]
        return found

    def toggle(self, node: Node) -> None:
        if node.children:
            self.opened ^= {node.path}


def make_tree(
    sizes: Iterable[tuple[str, int]],
    links: Iterable[tuple[str, str]] = (),
    folders: Iterable[str] = (),
    left_out: Iterable[tuple[str, str]] = (),
) -> FileTree:
    """Return the tree of files with their bytes, links with their targets, empty folders, and what is
    left out with the reason."""
    tree = FileTree()
    count = 0
    for path, size in sizes:
        node = _add(tree.top, path)
        node.size, node.files = size, 1
        count += 1
        for above in _above(tree.top, path):
            above.size += size
            above.files += 1
    for path, target in links:
        _add(tree.top, path).target = target
    for path in folders:
        _add(tree.top, f"{path}/")
    for path, why in left_out:
        _add(tree.top, path).why = why
        count += 1
    if count <= MOST_OPENED:
        tree.opened = set(_folders(tree.top))
    return tree


def _add(top: Node, path: str) -> Node:
    """Return the node of a path, made if it is new; a folder's path ends with a slash."""
    node = top
    parts = path.rstrip("/").split("/")
    for depth, name in enumerate(parts, 1):
        if node.children is None:
            node.children = {}
        child = node.children.get(name)
        if child is None:
            child = node.children[name] = Node("/".join(parts[:depth]), name)
        node = child
    if path.endswith("/") and node.children is None:
        node.children = {}
    return node


def _above(top: Node, path: str) -> Iterable[Node]:
    """Yield the folders above a path, the root included."""
    node = top
    yield node
    for name in path.split("/")[:-1]:
        assert node.children is not None
        node = node.children[name]
        yield node


def _folders(top: Node) -> Iterable[str]:
    left = [top]
    while left:
        node = left.pop()
        if node.children:
            yield node.path
            left += node.children.values()


def _sorted(folder: Node) -> list[Node]:
    """Return what a folder has, the last first."""
    children = (folder.children or {}).values()
    return sorted(
        children,
        key=lambda node: (node.why is not None, node.children is None, node.name),
        reverse=True,
    )
