"""Errors of exhausted limits of this process or machine, and their fixes.

Such an error can come from any call, so no place in the code has the right hint for it: "make room
there" does not help a process that may open no more files.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator

LEAST_FILES = 1024
"""The usual limit of open files, which is enough for stoke."""
_NEW_THREAD = "can't start new thread"
_DATABASE = "unable to open database file"


def exhausted_limit(error: BaseException) -> tuple[str, str] | None:
    """Return which limit is exhausted, and the fix; None if no such limit has caused `error`."""
    for one in chain_of(error):
        found = _limit(one)
        if found is not None:
            return found
    return None


def disk_trouble(error: BaseException) -> tuple[str, str] | None:
    """Return what a disk refused, and the fix; None if `error` is no such error."""
    if not isinstance(error, OSError):
        return None
    path = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
    if error.errno == errno.ENOSPC:
        where = shlex.quote(os.path.dirname(path or "") or ".")
        hint = f"make room there; see how much is left: df -h {where}; df -i {where}"
    elif error.errno == errno.EDQUOT:
        hint = "delete files of yours there; see how much you may store: quota -s"
    elif error.errno == errno.EFBIG:
        hint = "allow larger files: ulimit -f unlimited"
    elif error.errno == errno.EROFS:
        hint = (
            "name folders that you can write to: "
            "export STOKE_STATE_DIR=/some/folder STOKE_CACHE_DIR=/some/other"
        )
    else:
        return None
    return f"cannot write{'' if path is None else ' ' + path}: {error.strerror}", hint


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Give an error and all that caused it: causes, contexts and what the libraries wrap in `args`."""
    queue, seen = [error], set[int]()
    while queue:
        one = queue.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        queue.extend(item for item in inner if isinstance(item, BaseException))


def _limit(error: BaseException) -> tuple[str, str] | None:
    number = error.errno if isinstance(error, OSError) else None
    if _DATABASE in str(error):
        number = _open_files()
    if number == errno.EMFILE:
        return _too_many_files()
    if number == errno.ENFILE:
        hint = "raise its limit: sudo sysctl fs.file-max=1000000"
        return "this machine has too many open files", hint
    if number == errno.ENOMEM or isinstance(error, MemoryError):
        return _no_memory()
    is_fork = number == errno.EAGAIN and _is_raised_in(error, "subprocess.py")
    if is_fork or (isinstance(error, RuntimeError) and _NEW_THREAD in str(error)):
        return _too_many_processes()
    return None


def _open_files() -> int | None:
    """Return the error number of opening a file; None if that works."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno
    return None


def _too_many_files() -> tuple[str, str]:
    soft, hard = _limits("RLIMIT_NOFILE")
    what = "too many open files" + ("" if soft is None else f": this process may have {soft}")
    wanted = max(LEAST_FILES, 2 * (soft or 0))
    hint = f"raise the limit: ulimit -n {wanted}"
    if hard is not None and hard < wanted:
        hint = f"raise the limit of this shell: sudo prlimit --pid $$ --nofile={wanted}"
    return what, hint


def _no_memory() -> tuple[str, str]:
    soft, _ = _limits("RLIMIT_AS")
    if soft is None:
        hint = "see what uses it: ps aux --sort=-rss | head"
        return "no memory is left", hint
    hint = "start it from a shell with a higher limit: ulimit -v unlimited"
    return f"no memory is left: this process may have {soft} bytes", hint


def _too_many_processes() -> tuple[str, str]:
    soft, _ = _limits("RLIMIT_NPROC")
    what = "no process or thread can be started"
    hint = "see how many there are, and the limit: ps -eLf | wc -l; ulimit -u"
    return what + ("" if soft is None else f": this user may have {soft}"), hint


def _limits(name: str) -> tuple[int | None, int | None]:
    """Return the soft and the hard limit; None for one that is unlimited or unknown."""
    try:
        import resource

        soft, hard = resource.getrlimit(getattr(resource, name))
    except (ImportError, OSError, AttributeError):  # Its module is a file that has to be opened.
        return None, None
    unlimited = resource.RLIM_INFINITY
    return (None if soft == unlimited else soft), (None if hard == unlimited else hard)


def _is_raised_in(error: BaseException, file: str) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and os.path.basename(trace.tb_frame.f_code.co_filename) == file
