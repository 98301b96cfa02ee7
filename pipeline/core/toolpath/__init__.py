"""The way of the tool that a G-code program describes: pure, from text to moves."""

from pipeline.core.toolpath.program import read_toolpath

__all__ = ["read_toolpath"]
