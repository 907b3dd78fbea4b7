"""Figures and tables from what a run left in its folder."""
