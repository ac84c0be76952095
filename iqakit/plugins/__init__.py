"""Plugins and the catalog of parts."""
