"""How a benchmark's figures are kept: one JSON file each, with the machine they came from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

FOLDER = Path(__file__).parent / "results"


def data_folder() -> Path:
    """The folder of real data sets: $QUICKSTUDY_TEST_DATA, or shared/data beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("QUICKSTUDY_TEST_DATA") or default)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = "unknown processor"
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    graphics = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return {
        "hardware": f"{model}, {os.cpu_count()} CPU cores, {graphics}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def write(name: str, figures: dict[str, Any]) -> None:
    """Write benchmarks/results/<name>.json."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
