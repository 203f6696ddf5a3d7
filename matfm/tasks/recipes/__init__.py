"""Declarative data recipes: read, fetch, build, check, describe."""
