"""`make bench`: measures drctl beside an installed restic and borg, prints ratios, writes JSON.

docs/explanation/performance.md says how to read it. Figures of one run compare; those of two
machines, or of two days, do not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.growth import by_blobs, by_file_size
from benchmarks.machine import machine_facts
from benchmarks.rounds import MEMORY, Result, play_round, size_of
from benchmarks.table import medians, render
from benchmarks.tools import Tool, tools_found
from benchmarks.trees import TREES, TreeMaker, change
from drctl.clock import SystemClock

RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA = 1


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="0.1 makes a tenth of every tree")
    parser.add_argument(
        "--work", type=Path, help="where trees and repositories are made (default: a new folder)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="medians of this many")
    parser.add_argument("--trees", default="small,large,mixed")
    parser.add_argument("--tools", default="drctl,restic,borg")
    parser.add_argument("--growth", action="store_true", help="also measure how memory grows")
    parser.add_argument("--only-growth", action="store_true")
    parser.add_argument(
        "--json", type=Path, help="where the figures go (default: benchmarks/results/TIME.json)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the work folder")
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    started = SystemClock().now()
    work = options.work or Path(tempfile.mkdtemp(prefix="drctl-bench-"))
    work.mkdir(parents=True, exist_ok=True)
    report: dict[str, object] = {
        "schema": SCHEMA,
        "started": started.isoformat(),
        "machine": machine_facts(work),
        "scale": options.scale,
        "rounds": options.rounds,
    }
    try:
        if not options.only_growth:
            report |= _compare(options, work)
        if options.growth or options.only_growth:
            report["growth"] = _growth(options.scale, work / "growth")
    finally:
        shutil.rmtree(MEMORY, ignore_errors=True)
        if not options.keep and options.work is None:
            shutil.rmtree(work, ignore_errors=True)
    target = options.json or RESULTS / f"{started:%Y%m%dT%H%M%SZ}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(report, indent=1) + "\n")
    print(f"figures: {os.path.relpath(target)}")


def _compare(options: argparse.Namespace, work: Path) -> dict[str, object]:
    kinds = tools_found(options.tools.split(","))
    results: list[Result] = []
    sizes: dict[str, dict[str, int]] = {}
    versions: dict[str, str] = {}
    for name in options.trees.split(","):
        tree = work / "trees" / name
        shutil.rmtree(tree, ignore_errors=True)
        _say(f"{name}: making the tree")
        TREES[name](TreeMaker(work / "trees", options.scale))
        for number in range(options.rounds):
            tools: list[Tool] = [kind(work, tree) for kind in kinds.values()]
            versions = {tool.name: tool.version() for tool in tools}
            for result in play_round(name, tree, tools, number, change, work):
                _say(f"{name} {result.operation}: {result.tool} {result.measurement.wall_s:.2f} s")
                results.append(result)
            sizes[name] = {tool.name: size_of(tool.repository) for tool in tools}
        shutil.rmtree(tree)
    print(*(f"{name}: {version}" for name, version in versions.items()), sep="\n")
    print(f"medians of {options.rounds}, page cache warm, scale {options.scale:g}")
    print(render(results, list(kinds), sizes))
    return {
        "tools": versions,
        "runs": [asdict(result) for result in results],
        "medians": [
            dict(
                zip(
                    ("tree", "operation", "tool", "wall_s", "peak_pss", "max_rss"),
                    (*key, *figures),
                    strict=True,
                )
            )
            for key, figures in medians(results).items()
        ],
        "repository_bytes": sizes,
    }


def _growth(scale: float, work: Path) -> dict[str, object]:
    work.mkdir(parents=True, exist_ok=True)
    _say("growth: by blobs")
    blobs = by_blobs(work, [round(step * scale) for step in (500_000, 1_000_000, 2_000_000)])
    _say("growth: by file size")
    sizes = by_file_size(work, [round(step * scale) * 2**20 for step in (200, 800, 3200)])
    growth: dict[str, object] = {"repository": blobs, "file": sizes}
    print(json.dumps(growth, indent=1))
    return growth


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
