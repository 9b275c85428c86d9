"""The rules of the house: names, sizes, safety, and documents that say what was measured."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import quickstudy as qs

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))


def test_what_is_exported_is_sorted_and_there() -> None:
    assert qs.__all__ == sorted(set(qs.__all__), key=lambda name: (name[0].islower() or name[0] == "_", name))
    assert all(hasattr(qs, name) for name in qs.__all__)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_a_file_is_one_room(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= (120 if "learners" in path.parts and path.name != "__init__.py" else 300)
    assert not re.search(r"(util|helper|common|base(?!line)|manager|misc)", path.stem)
    assert path.read_text().startswith('"""')


def test_nothing_can_run_code_from_a_file() -> None:
    calls = r"(?<!safetensors\.)torch\.load\(|yaml\.load\(|(?<!\.)\b(?:eval|exec)\("
    danger = re.compile(rf"import pickle|import marshal|allow_pickle=True|{calls}")
    assert not {str(path): found for path in SOURCES if (found := danger.findall(path.read_text()))}


def test_the_documents_say_what_was_measured() -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), target
