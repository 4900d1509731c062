"""Shards, rows, the part store and the engine that fills it."""
