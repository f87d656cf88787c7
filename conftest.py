"""Pictures are compared too, also by a plain `pytest --nbval notebooks`."""

pytest_plugins = ["nbval_pictures"]  # in tests/support
