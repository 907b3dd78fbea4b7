"""The command line."""

from eorinfer.cli.app import main

__all__ = ["main"]
