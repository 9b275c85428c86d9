"""The healthcare examples run in their shortest form, go on where they were, and their page can be written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # tasks that have too few rows for so many are left out and said
def test_all_parts_in_short(
    test_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("statsmodels", reason="mixed-effects regression needs statsmodels")
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples"), str(ROOT / "benchmarks"), *sys.path])
    monkeypatch.setenv("QUICKSTUDY_TEST_DATA", str(test_data))
    before = set(sys.modules)
    import healthcare
    import healthcare_table

    try:
        figures = healthcare.run(list(healthcare.PARTS), test_data, tmp_path, short=True, write=False)
        assert "hospitals: protonet-va" in capsys.readouterr().out
        again = healthcare.run(list(healthcare.PARTS), test_data, tmp_path, short=True, write=False)
        assert again == figures and not capsys.readouterr().out
        monkeypatch.setattr(healthcare_table, "read", lambda name: figures)
        said = healthcare_table.section()
    finally:
        for name in set(sys.modules) - before:
            if name.startswith("healthcare"):
                del sys.modules[name]
    for part, words in (
        ("patients", "14 unseen patients"), ("hospitals", "16 labelled"), ("xrays", "234 normal"), ("ecg", "ECG5000"),
    ):  # fmt: skip
        assert words in said, part
    assert "mixed-effects regression" in said and "(best plain)" in said and "nan" not in said
    assert figures["parts"]["hospitals"]["best"]["16"] == "logistic_pooled"


def test_the_page_tells_what_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import healthcare_table as page

    gap = lambda mean, half: {"difference": {"mean": mean, "interval": half}}  # noqa: E731
    rows = {"a": {"1": gap(0.05, 0.01), "5": gap(-0.02, 0.01), "tried": {}}, "b": {"1": gap(0.01, 0.02)}}
    said = page.verdicts(rows, {"a": "A", "b": "B"}, ("a", "b"), "cases")
    assert said.splitlines() == [
        "- A: pays from 1 cases (+5.0 ± 1.0); is worse from 5 cases (-2.0 ± 1.0).",
        "- B: cannot be told apart from 1 cases (+1.0 ± 2.0).",
    ]
    assert "does not pay here" in page.verdicts(rows, {"b": "B"}, ("b",), "cases")
    assert page.verdicts(rows, {"a": "A"}, ("a",), "cases", -1).startswith("- A: pays from 5 cases (-0.0 ± 0.0)")
    monkeypatch.setattr(page, "read", lambda name: None)
    assert page.section() == ""
