"""drctl: continuity as code. A plan file promises; drctl performs and proves."""

__version__ = "0.1.0"
