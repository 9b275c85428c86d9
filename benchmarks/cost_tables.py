"""The figures of growth.py and precision.py as Markdown, for docs/speed.md."""

from __future__ import annotations

import shlex
from typing import Any

from tables import percent, table


def growth(found: dict[str, Any] | None) -> str:
    """How cost grows, a line a curve."""
    if not found:
        return ""
    rows = []
    for title, panel in found["panels"].items():
        for name, curve in panel["curves"].items():
            ends = f"{panel['axis']} {curve['at'][0]} to {curve['at'][-1]}"
            cells = [f"{curve[m][0]:.1f} to {curve[m][-1]:,.1f}" for m in ("milliseconds", "megabytes")]
            lines = [f"{curve['lines'][m]['r2']:.3f}" for m in ("milliseconds", "megabytes")]
            rows.append([title, name, ends, cells[0], lines[0], cells[1], lines[1]])
    header = ["", "", "from, to", "ms", "R² of a line", "MB", "R² of a line"]
    return "\n".join(
        [
            "## How cost grows",
            "",
            "![time and memory against inner steps, tasks, classes and pixels](growth.png)",
            "",
            table(header, rows),
            "",
            "Memory is the most that tensors made in one part of an outer step hold at once; a line that hardly rises "
            "has no R² to speak of. With Conv4 a part is one task, and time is that of the parts one after the other: "
            "training works on as many of them at once as there are threads, at most four, in less time and as many "
            "times the memory. "
            f"Medians of three on {found['hardware']}, {found['threads']} thread(s). "
            "`python benchmarks/growth.py`",
        ]
    )


def precision(found: dict[str, Any] | None) -> str:
    """What bfloat16 costs."""
    if not found:
        return ""
    rows = []
    for name, row in found["rows"].items():
        difference, seconds, error = row["difference"], row["step_seconds"], row["gradient_error"]
        rows.append(
            [
                name,
                percent(row["float32"]),
                percent(row["bfloat16"]),
                f"{100 * difference['mean']:+.1f} ± {100 * difference['interval']:.1f}",
                f"{seconds['bfloat16'] / seconds['float32']:.2f}",
                f"{error['float32']:.0e}",
                f"{error['bfloat16']:.2f}",
            ]
        )
    header = ["learner", "float32, %", "bfloat16, %", "difference", "time ratio", "gradient error", "in bfloat16"]
    return "\n".join(
        [
            "## bfloat16",
            "",
            table(header, rows),
            "",
            f"Glyphs, trained for {found['steps']} steps each way from the same weights on the same tasks, scored on "
            f"{found['test_tasks']} 5-way 1-shot tasks of unseen scripts; the difference is paired. The error is that "
            "of one meta-gradient against float64. A processor without bfloat16 arithmetic only loses time by it: "
            f"measured on {found['hardware']}. `python benchmarks/precision.py --learners {shlex.join(found['rows'])}`",
        ]
    )
