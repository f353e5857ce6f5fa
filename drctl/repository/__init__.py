"""The repository in the restic format: formats at the bottom, orchestration on top."""
