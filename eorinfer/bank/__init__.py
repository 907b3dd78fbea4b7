"""The simulation bank: a folder of immutable files that any number of processes may fill."""

from eorinfer.bank.store import Bank

__all__ = ["Bank"]
