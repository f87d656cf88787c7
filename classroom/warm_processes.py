"""Hand out servers and kernels that have all they need loaded, and share the memory of it.

    python classroom/warm_processes.py SOCKET GROUP MEMORY

JupyterLab's server takes some 120 MB, and PyTorch with what the lessons import beside it 350 MB,
which every process fills for itself, in seconds of work. This process, which the hub starts once,
imports them and waits. For each learner who asks it makes a copy of itself (fork): that shares
all memory that neither of the two changes. The copy becomes the account that asks before it
reads a byte of what is asked, and then a server or a kernel.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import os
import pwd
import resource
import shutil
import signal
import socket
import struct
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What servers and lessons import, but for what asks on import whether it is in a notebook:
# there is none yet. `ipywidgets` and `tqdm.auto` are such, and so `seaborn`, `timm` and the labs.
WARM = (
    "jupyterhub.singleuser.app",
    "jupyterlab.labhubapp",
    "ipykernel.kernelapp",
    "torch",
    "torchvision",
    "matplotlib.pyplot",
    "pandas",
    "gap_utils.checks",
    "gap_utils.data",
    "gap_utils.figures",
    "gap_utils.shapes",
)
LARGEST_REQUEST = 1 << 17  # bytes
PR_SET_DUMPABLE = 4


def serve(path: Path, group: str, memory: int) -> None:
    """Wait for those who ask, until this process is ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # one that has ended needs nobody
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends this without a traceback
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        shutil.chown(path, group=group)
        path.chmod(0o660)
        listener.listen(64)
        while True:
            asker, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                try:
                    become(asker, memory)
                except Exception:
                    traceback.print_exc()  # the log of the hub has it
                finally:
                    os._exit(1)
            asker.close()


def become(asker: socket.socket, memory: int) -> None:
    """Become the account that asks, and then what it asks for."""
    become_account(asker, memory)
    request, files, _, _ = socket.recv_fds(asker, LARGEST_REQUEST, 3)
    if len(files) != 3:  # or it would keep those of the hub
        raise ValueError(f"expected 3 files to read from and write to, got {len(files)}")
    wanted = json.loads(request)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end_with(asker)
    {"server": run_server, "kernel": run_kernel}[wanted["what"]](wanted["arguments"])


def become_account(asker: socket.socket, memory: int) -> None:
    """Give up being root, for good."""
    credentials = asker.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)  # as the system says, not the asker
    if uid == 0:
        raise ValueError("expected a learner who asks for a process, got root")
    account = pwd.getpwuid(uid)
    # what a process holds for itself; what it maps from files is shared
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    os.setsid()
    os.initgroups(account.pw_name, account.pw_gid)
    os.setgid(account.pw_gid)
    os.setuid(uid)
    # a process that has changed its account may not look at itself in /proc unless it says so
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1)
    os.umask(0o077)


def end_with(asker: socket.socket) -> None:
    """End this process, whatever it does, when the one that asked for it has ended."""
    asker.send(str(os.getpid()).encode())
    fcntl.fcntl(asker, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(asker, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(asker, fcntl.F_SETFL, fcntl.fcntl(asker, fcntl.F_GETFL) | os.O_ASYNC)
    asker.setblocking(False)
    try:
        asker.recv(1)  # nothing comes but the end
    except BlockingIOError:
        return
    os._exit(1)  # it had ended before


def run_server(arguments: list[str]) -> None:
    """Run a learner's server, as `jupyterhub-singleuser` does."""
    from jupyterhub.singleuser.app import main

    from classroom.lessons import copy_lessons

    copy_lessons(Path(os.environ["GAP_CLASS_LESSONS"]), Path.home())
    # short, since the path of a socket has at most 107 letters
    os.environ["JUPYTER_RUNTIME_DIR"] = str(Path.home() / ".jupyter-run")
    sys.argv = ["jupyterhub-singleuser", *arguments]
    main()
    os._exit(0)


def run_kernel(arguments: list[str]) -> None:
    """Run a kernel, as `python -m ipykernel_launcher` does."""
    import numpy
    from ipykernel.kernelapp import IPKernelApp

    numpy.random.seed()  # or all would have the same random numbers
    sys.path.remove(str(ROOT))  # the lessons look for the package themselves
    # a parent that needs no watching, since `end_with` does that
    sys.argv = ["ipykernel_launcher", "--IPKernelApp.parent_handle=1", *arguments]
    IPKernelApp.launch_instance()
    os._exit(0)


def main(path: str, group: str, memory: str) -> None:
    """Load what servers and kernels need, and hand them out."""
    sys.path[0] = str(ROOT)  # and not the folder of this script
    # as a kernel does before anything draws
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    for name in WARM:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or the next collection would write into all of it
    serve(Path(path), group, int(memory))


if __name__ == "__main__":
    main(*sys.argv[1:])
