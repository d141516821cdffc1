"""Figures of the whole program: swaps, what a start costs, hostile bodies."""

SECTIONS: dict = {}
