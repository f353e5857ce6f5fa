"""The plan file: from YAML text with positions to the frozen values of `domain.plan`.

Invariant: either a consistent `Plan` comes out, or one `PlanError` that lists every problem
with its file, line and column. `read.read_plan` is the entry.
"""
