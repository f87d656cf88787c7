"""Stand for a server or a kernel that `warm_processes.py` makes.

    python -IS classroom/ask_for_process.py server|kernel ARGUMENTS

What starts and ends this process starts and ends the other; what is sent to it is sent on.
"""

import json
import os
import select
import signal
import socket
import sys
import time

PATIENCE = 5  # seconds
LONGEST_START = 60  # seconds that the other may take to load, when the hub has just started


def connect(warm):
    """Reach the process that makes others, as soon as it is there."""
    began = time.monotonic()
    while True:
        try:
            return warm.connect(os.environ["GAP_CLASS_SOCKET"])
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() - began > LONGEST_START:
                raise
            time.sleep(0.2)


with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as warm:
    connect(warm)
    # the server, if this is for a kernel, which then has another parent
    parent = int(os.environ.pop("JPY_PARENT_PID", "0"))
    wanted = {
        "what": sys.argv[1],
        "arguments": sys.argv[2:],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
    }
    socket.send_fds(warm, [json.dumps(wanted).encode()], [0, 1, 2])
    answer = warm.recv(64)
    if not answer:
        sys.exit(f"expected a {sys.argv[1]}, got none; the log of the hub says why")
    pid = int(answer)
    ended = os.pidfd_open(pid)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.killpg(pid, number))
    while not select.select([ended], [], [], PATIENCE)[0]:
        if parent and parent != os.getppid():
            break  # and the kernel ends too
