"""Walk and delete folders that jobs write to: any depth, names and modes; no link is followed."""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator


# Open a folder itself: follow no symbolic link and wait for no pipe.
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_folder(name: str, parent: int) -> int:
    """Open the folder `name` in the open folder `parent`, with all rights for its owner."""
    try:
        folder = os.open(name, FOLDER, dir_fd=parent)
    except PermissionError:
        if not hasattr(os, "O_PATH"):
            raise
        # A job removed the rights. chmod would follow a link that replaced the folder since.
        handle = os.open(name, FOLDER | os.O_PATH, dir_fd=parent)
        try:
            os.chmod("/proc/self/fd/%d" % handle, 0o700)
        finally:
            os.close(handle)
        folder = os.open(name, FOLDER, dir_fd=parent)
    try:
        if os.fstat(folder).st_mode & 0o700 != 0o700:
            os.fchmod(folder, 0o700)
    except OSError:  # another user's folder: use the rights that are left
        pass
    return folder


def contents_first(
    parent: int, name: str
) -> Generator[tuple[int, str, os.stat_result], None, None]:
    """Yield (open folder, name, status) for `name` and everything below it, each folder after its
    contents.

    Depth costs neither descriptors nor recursion: the way up is "..", if that is still the folder
    that the walk came from. Follows no symbolic link and enters no other file system.
    """
    here = os.open(".", FOLDER, dir_fd=parent)
    left = [[name]]  # names still to visit, for each folder from the top to `here`
    above: list[tuple[os.stat_result, str, os.stat_result]] = []  # folder, its child, its status
    device = None
    try:
        while True:
            if not left[-1]:
                left.pop()
                if not above:
                    return
                folder, name, status = above.pop()
                up = os.open("..", FOLDER, dir_fd=here)
                os.close(here)
                here = up
                if not os.path.samestat(os.fstat(here), folder):
                    return  # a job moved the folder, so ".." is outside of the tree
                yield here, name, status
                continue
            name = left[-1].pop()
            try:
                status = os.stat(name, dir_fd=here, follow_symlinks=False)
            except OSError:
                continue
            device = status.st_dev if device is None else device
            if status.st_dev != device:
                continue
            if not stat.S_ISDIR(status.st_mode):
                yield here, name, status
                continue
            try:
                inner = open_folder(name, here)
            except OSError:
                yield here, name, status
                continue
            try:
                # A folder without search permission has no way up.
                os.stat(".", dir_fd=inner, follow_symlinks=False)
                names = os.listdir(inner)
                folder = os.fstat(here)
            except OSError:
                os.close(inner)
                yield here, name, status
                continue
            os.close(here)
            here = inner
            left.append(names)
            above.append((folder, name, status))
    finally:
        os.close(here)


def remove_tree(path: str, tick: Callable[[], None] = lambda: None) -> int:
    """Delete a file, or a folder and everything below it; return the bytes that this freed.

    Handles any depth, name and mode; follows no symbolic link. Skips files that it cannot delete.
    Calls `tick` for every file.
    """
    folder, name = os.path.split(path)
    try:
        parent = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return 0
    freed = 0
    visit = contents_first(parent, name)
    try:
        for inside, name, status in visit:
            tick()
            is_folder = stat.S_ISDIR(status.st_mode)
            try:
                (os.rmdir if is_folder else os.unlink)(name, dir_fd=inside)
            except OSError:
                continue
            if is_folder or status.st_nlink == 1:
                freed += status.st_blocks * 512
    except OSError:
        pass  # the way up is closed
    finally:
        visit.close()
        os.close(parent)
    return freed
