"""Workflows: one file per thing drctl does, over ports and the repository."""
