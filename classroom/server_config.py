"""Settings of each learner's server, which run as that learner."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
IDLE = 60 * int(os.environ["GAP_CLASS_IDLE_MINUTES"])  # seconds

c = get_config()  # noqa: F821, Jupyter's
load_subconfig(str(HERE.parent / "tools" / "jupyter_lab_config.py"))  # noqa: F821
c.ServerApp.root_dir = str(Path.home())  # and not the project's
c.ServerApp.kernel_manager_class = "classroom.kernels.FewKernelsManager"
c.MappingKernelManager.kernel_manager_class = "classroom.kernels.WarmKernelManager"
# on TCP every account of the machine can listen to what a kernel prints
c.KernelManager.transport = "ipc"

# where JupyterLab keeps these is decided on import, which was before there was a learner
c.LabApp.user_settings_dir = str(Path.home() / ".jupyter/lab/user-settings")
c.LabApp.workspaces_dir = str(Path.home() / ".jupyter/lab/workspaces")

# a kernel without work ends first, then a server without kernels
c.MappingKernelManager.cull_idle_timeout = IDLE
c.MappingKernelManager.cull_interval = 60
c.MappingKernelManager.cull_connected = True  # a page that is open keeps no kernel
c.ServerApp.shutdown_no_activity_timeout = IDLE

# what no lesson uses costs memory
c.ServerApp.terminals_enabled = False
c.ServerApp.jpserver_extensions = {
    "jupyter_lsp": False,
    "jupyter_server_terminals": False,
    "notebook": False,
    "notebook_shim": False,
}
