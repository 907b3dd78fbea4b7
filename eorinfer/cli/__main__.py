"""``python -m eorinfer.cli``."""

from eorinfer.cli.app import main

main()
