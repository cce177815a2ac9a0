"""The shell commands; each module holds one, and imports what it needs only when it runs."""

from actcli.cli._app import app, main

__all__ = ["app", "main"]
