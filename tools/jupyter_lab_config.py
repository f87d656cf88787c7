"""Settings for JupyterLab that make sliders answer sooner; `make lab` uses them.

A slider's move comes back to the browser as several small messages. Jupyter Server lets
TCP hold the later ones back until the first is acknowledged, 40 ms on Linux, at every
other move. Here they go out at once. Measured with `make bench`.
"""

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class PromptConnection(ZMQChannelsWebsocketConnection):
    """The connection between kernel and browser, without TCP's delay for small messages."""

    def connect(self):
        """Open the connection."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()


c.ServerApp.kernel_websocket_connection_class = PromptConnection  # noqa: F821, Jupyter's `c`
