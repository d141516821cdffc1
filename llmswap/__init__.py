"""One GPU box, many models: the proxy that swaps them. See DESIGN.md beside this file for the rooms."""

__version__ = "0.1.0"
