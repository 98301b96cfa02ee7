"""Shapes on the wire and on disk: pydantic models and their frozen JSON Schemas."""
