"""Interp."""
