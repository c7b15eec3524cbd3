"""What the README says works."""

import re
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from studies.engine.plan import groups
from studies.engine.study import load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_library_in_fifteen_lines(capsys):
    (code,) = re.findall(r"## The library\n\n```python\n(.*?)```", README, re.DOTALL)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 17
    found = {}
    exec(code, found)
    losses = found["report"].to_frame()
    assert (losses["loss"] < losses["baseline"]).all()
    scores = found["model"].evaluate(*found["data"].test, verbose=0)
    assert scores[1] > 0.9
    assert len(found["history"]) == 50
    assert "hidden_3" in capsys.readouterr().out


@pytest.mark.slow
def test_a_comparison_in_less_than_ten_lines(capsys):
    pytest.importorskip("sklearn")
    section = README.partition("## Does it pay")[2]
    (code,) = re.findall(r"```python\n(.*?)```", section.partition("## ")[0], re.DOTALL)
    assert sum(bool(line.strip()) for line in code.splitlines()) < 10
    small = "seeds=3, epochs=2, pretraining_epochs=1, learning_rates=(0.003,)"
    exec(code.replace("minutes=5", f"{small}, pretraining_rates=(0.003,)"), {})
    printed = capsys.readouterr().out
    assert "Denoising pretraining" in printed and "3 pairs" in printed


@pytest.mark.slow
def test_a_pretrained_stack_is_unrolled(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code = next(c for c in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "unroll(" in c)
    found = {}
    exec(code, found)
    printed = capsys.readouterr().out
    pretrained, tuned = (float(error) for error in re.findall(r"ed: (\S+)", printed))
    assert tuned < pretrained < found["x"].var(axis=0).mean()
    assert Path("deep.keras").exists()


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_prediction_interval_of_the_tutorials_network_follows_from_its_records():
    records = pd.read_json(ROOT / "results/tutorial_sda/standard/records.jsonl", lines=True)
    wanted = load("tutorial_sda").scales["standard"]
    keys = [
        trial.key
        for group in groups(wanted, records.to_dict("records"))
        for trial in group.trials
        if trial.arm == "tutorial"
    ]
    errors = 100 * records[records["key"].isin(keys)]["test_error"].dropna()
    n = len(errors)
    half = stats.t.ppf(0.975, n - 1) * errors.std() * (1 + 1 / n) ** 0.5
    low, high = errors.mean() - half, errors.mean() + half
    assert f"{low:.2f} to {high:.2f} %" in README
