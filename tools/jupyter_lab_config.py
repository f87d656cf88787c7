"""Settings for JupyterLab that `make lab` and the README's commands use.

The whole project is served, not only the folder of the lesson, so that a lesson's links to
the source of `gap_utils` open.

Labs answer sooner. What a lab asks for comes back to the browser as several small messages.
Jupyter Server lets TCP hold the later ones back until the first is acknowledged, 40 ms on
Linux, at every other move. Here they go out at once. Measured with `make bench`.
"""

from pathlib import Path

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class PromptConnection(ZMQChannelsWebsocketConnection):
    """The connection between kernel and browser, without TCP's delay for small messages."""

    def connect(self):
        """Open the connection."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()


c.ServerApp.root_dir = str(Path(__file__).resolve().parent.parent)  # noqa: F821, Jupyter's `c`
c.ServerApp.kernel_websocket_connection_class = PromptConnection  # noqa: F821
