"""The measured medians as a table for people."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from benchmarks.rounds import OPERATIONS, Result


def medians(results: Iterable[Result]) -> dict[tuple[str, str, str], tuple[float, int, int]]:
    """(tree, operation, tool) -> median wall seconds, median peak PSS, largest RSS of one process."""
    grouped: dict[tuple[str, str, str], list[Result]] = {}
    for result in results:
        grouped.setdefault((result.tree, result.operation, result.tool), []).append(result)
    return {
        key: (
            median(run.measurement.wall_s for run in runs),
            round(median(run.measurement.peak_pss for run in runs)),
            max(run.measurement.max_rss for run in runs),
        )
        for key, runs in grouped.items()
    }


def render(results: list[Result], tools: list[str], sizes: dict[str, dict[str, int]]) -> str:
    """Seconds and MB of each tool, and drctl's ratio to each peer (below 1: drctl is better)."""
    figures = medians(results)
    peers = [tool for tool in tools if tool != "drctl"]
    header = [f"{'':28}", *(f"{tool:>15}" for tool in tools), *(f"{'/ ' + peer:>15}" for peer in peers)]
    lines = [
        "".join(header),
        "".join([f"{'':28}", *("      s      MB" for _ in tools), *("   time  memory" for _ in peers)]),
    ]
    for tree in dict.fromkeys(result.tree for result in results):
        for operation in OPERATIONS:
            cells = [f"{tree + ' ' + operation:28}"]
            ours = figures.get((tree, operation, "drctl"))
            for tool in tools:
                wall_s, pss, _ = figures[tree, operation, tool]
                cells.append(f"{wall_s:8.2f}{pss / 1e6:7.0f}")
            for peer in peers:
                wall_s, pss, _ = figures[tree, operation, peer]
                cells.append(f"{ours[0] / wall_s:8.2f}{ours[1] / max(pss, 1):7.2f}" if ours else " " * 15)
            lines.append("".join(cells))
        listed = "  ".join(f"{tool} {size / 1e6:.0f} MB" for tool, size in sizes[tree].items())
        lines.append(f"{tree + ' repository size':28}  {listed}")
    return "\n".join(lines)
