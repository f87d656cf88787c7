"""Pictures are compared too, also by a plain `pytest --nbval notebooks`."""

pytest_plugins = ["nbval_pictures", "browser_fixtures"]  # in tests/support
