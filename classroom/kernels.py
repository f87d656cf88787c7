"""How a learner's server starts kernels: warm ones, and few."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jupyter_server.services.kernels.kernelmanager import (
    AsyncMappingKernelManager,
    ServerKernelManager,
)
from tornado.web import HTTPError

ASK = Path(__file__).resolve().parent / "ask_for_process.py"
MOST = int(os.environ["GAP_CLASS_KERNELS"])


class WarmKernelManager(ServerKernelManager):
    """Starts a kernel by asking for one that has PyTorch loaded already."""

    def format_kernel_cmd(self, extra_arguments=None):
        """Say what to start in place of `python -m ipykernel_launcher`."""
        return [sys.executable, "-IS", str(ASK), "kernel", "-f", self.connection_file]


class FewKernelsManager(AsyncMappingKernelManager):
    """Starts no more kernels than one learner may have."""

    async def start_kernel(self, **options):
        """Start a kernel."""
        if len(self) >= MOST:
            raise HTTPError(
                403,
                f"expected at most {MOST} lessons at work at once: end one under "
                "Running Terminals and Kernels, on the left",
            )
        return await super().start_kernel(**options)
