"""Settings of JupyterHub for a class on one Linux machine. docs/classroom.md tells how to use it.

Each learner is an account of the machine: PAM asks for its password, and server and kernels run
as that account, so that the system itself keeps the files of learners apart.
"""

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from classroom.settings import (  # noqa: E402
    GROUP,
    check_machine,
    count_cores,
    learners_of,
    let_nobody_read_the_terminal,
    read_settings,
)

c = get_config()  # noqa: F821, Jupyter's

try:
    learners = learners_of(os.environ.get("GAP_CLASS_GROUP", GROUP))
    settings = read_settings(os.environ, count_cores(), len(learners))
    check_machine(settings, learners)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    proxy = shutil.which("configurable-http-proxy", path=path)
    if not proxy:
        raise ValueError(
            "expected configurable-http-proxy beside Python or on the PATH, got none: "
            "install it with: npm install --global --prefix .venv configurable-http-proxy@5.3.0"
        )
except ValueError as error:
    sys.exit(f"The class does not start: {error}.")

# what root writes from here on is nobody else's, and no byte code that learners could not read
let_nobody_read_the_terminal()
os.umask(0o077)
sys.dont_write_bytecode = True
settings.state.mkdir(parents=True, exist_ok=True)
settings.state.chmod(0o711)  # learners reach the socket in it, and see nothing

c.JupyterHub.bind_url = settings.address
c.JupyterHub.ssl_cert = settings.certificate
c.JupyterHub.ssl_key = settings.key
c.JupyterHub.db_url = f"sqlite:///{settings.state / 'hub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(settings.state / "cookie_secret")
c.ConfigurableHTTPProxy.command = [proxy]
c.ConfigurableHTTPProxy.pid_file = str(settings.state / "proxy.pid")

# a password of one's own, and nobody outside the class
c.JupyterHub.authenticator_class = "pam"
c.PAMAuthenticator.allowed_groups = {settings.group}

# one account, one server
c.JupyterHub.spawner_class = "localprocess"
c.JupyterHub.allow_named_servers = False
c.Spawner.cmd = [sys.executable, "-IS", str(HERE / "ask_for_process.py"), "server"]
c.Spawner.args = [f"--config={HERE / 'server_config.py'}"]
c.Spawner.default_url = "/lab/tree/notebooks/00_start_here.ipynb"
c.Spawner.disable_user_config = True
c.Spawner.http_timeout = 120
c.Spawner.env_keep = ["PATH", "LANG", "LC_ALL", "JUPYTER_PATH"]
c.Spawner.environment = {
    "GAP_CLASS_SOCKET": str(settings.socket),
    "GAP_CLASS_LESSONS": str(settings.lessons),
    "GAP_CLASS_KERNELS": str(settings.kernels),
    "GAP_CLASS_IDLE_MINUTES": str(settings.idle_minutes),
    "OMP_NUM_THREADS": str(settings.threads),
}

# Servers and kernels are copies of one process that has all of it loaded, and share its memory.
# `env -i`: nothing of the hub's environment is in them.
c.JupyterHub.services = [
    {
        "name": "warm-processes",
        "cwd": "/",
        "command": [
            *("env", "-i", f"PATH={os.environ['PATH']}", "LANG=C.UTF-8"),
            f"OMP_NUM_THREADS={settings.threads}",
            "PYTHONDONTWRITEBYTECODE=1",
            f"MPLCONFIGDIR={settings.state / 'matplotlib'}",
            *(sys.executable, str(HERE / "warm_processes.py")),
            *(str(settings.socket), settings.group, str(settings.memory)),
        ],
    }
]
