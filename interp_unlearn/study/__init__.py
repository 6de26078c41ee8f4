"""The study: every objective on every goal, on the embedded world, from nothing to the figures."""

from interp_unlearn.study.plan import Cell, StudyConfig, cells_of
from interp_unlearn.study.reproduce import reproduce

__all__ = ["Cell", "StudyConfig", "cells_of", "reproduce"]
