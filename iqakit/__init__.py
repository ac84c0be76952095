"""Blind image quality assessment that learns new domains without forgetting."""

from __future__ import annotations

__version__ = "0.1.0.dev0"
