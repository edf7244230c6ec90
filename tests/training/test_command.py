"""`python -m saewidgets.training train.toml`: what it says, what it keeps, how it goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import saewidgets as sw
from saewidgets.training import __main__ as command
from saewidgets.training import checkpoints
from saewidgets.training.job import TrainJob
from saewidgets.training.run import TrainingRun

PAGE = """
output = "my-sae"
[activations]
cache = "acts"
batch_size = 100
[sae]
d_sae = 32
k = 4
[train]
n_tokens = 2_000
n_logs = 4
checkpoint_dir = "my-run"
"""


@pytest.fixture
def here(tmp_path: Path, cached_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with activations."""
    (tmp_path / "acts").symlink_to(cached_folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def cached_folder(demo_model: object, texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cached") / "acts"
    sw.ActivationStream(demo_model, texts[:8], "blocks.1.hook_resid_post", context_size=32).cache(folder)
    return folder


def given(page: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The command on such a page; its exit status."""
    Path("train.toml").write_text(page)
    monkeypatch.setattr(sys, "argv", ["saewidgets.training", "train.toml"])
    return command.main()


def test_it_says_what_it_does_and_goes_on_when_given_again(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert given(PAGE, monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("n_tokens=2_000): begins, 20 steps")
    assert [line.split("  ")[0] for line in lines[1:-1]] == ["step 5", "step 10", "step 15", "step 20"]
    assert " lr 0  " in lines[-2] and lines[-2].endswith("left 0:00:00") and "vectors_per_second" in lines[-2]
    assert lines[-1].startswith("finished at step 20 of 20") and lines[-1].endswith("The SAE is saved in 'my-sae'.")
    assert sw.load_sae("my-sae").metadata.n_tokens_trained == 2000

    assert given(PAGE, monkeypatch) == 0
    said = capsys.readouterr().out
    assert "is finished already, after 20 steps. A larger n_tokens goes on with it" in said and "loss" not in said

    assert given(PAGE.replace("2_000", "3_000"), monkeypatch) == 0
    said = capsys.readouterr().out
    assert "goes on at step 20 of 30 steps" in said and "step 30" in said
    assert sw.load_sae("my-sae").metadata.n_tokens_trained == 3000


def test_other_settings_than_those_of_the_run_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(page: str) -> TrainingRun:
        Path("train.toml").write_text(page)
        return TrainJob.from_toml("train.toml").start(device="cpu")

    run = start(PAGE)
    run.pause()
    run.set(k=5)  # what was changed while it ran is no other setting
    run.resume()
    run.wait()
    torch.manual_seed(0)
    assert start(PAGE.replace("2_000", "2_500")).wait()
    for old, new, told in (
        ("d_sae = 32", "d_sae = 64", r"d_sae \(32 there, 64 in the job\)"),
        ("n_logs = 4", "n_logs = 4\nlr = 1e-3", r"lr \(None there, 0.001 in the job\)"),
        ("n_tokens = 2_000", "n_tokens = 1_000", "has trained on 2,500 vectors already"),
    ):
        with pytest.raises(ValueError, match=told):
            start(PAGE.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("d_sae = 32", "dsae = 32", "Did you mean 'd_sae'?"),
        ('output = "my-sae"', "", "keeps nothing of what is trained"),
        ('cache = "acts"', 'cache = "none"', "none"),
        ('cache = "acts"', 'cache = "acts"\nhook_name = "x"', "a cache, which takes the place of hook_name"),
        ('"my-sae"', '"train.toml"', "output is 'train.toml', which is a file"),
        ('"my-sae"', '"other-sae"', "holds an SAE already, and this job begins anew"),
        ("k = 4", 'architecture = "relu"', "Features can be spread over processes for architecture='topk'"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    old: str, new: str, sentence: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sw.save_sae(sw.SAE(sw.SAEConfig(d_in=8, d_sae=16, k=2)), "other-sae")
    page = PAGE.replace(old, new)
    if not new:
        page = page.replace('checkpoint_dir = "my-run"', "")
    if "relu" in new:
        page = f'split = "features"\n{page}'
    assert given(page, monkeypatch) == 1
    told = capsys.readouterr()
    assert sentence in told.err and "Traceback" not in told.err and not told.out


def test_ctrl_c_writes_a_checkpoint_and_the_command_goes_on_from_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: TrainJob, run: TrainingRun) -> None:
        while run.step < 3:
            time.sleep(0.01)
        run.pause()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainJob, "finish", interrupted)
        assert given(PAGE.replace("2_000", "50_000"), monkeypatch) == 130
    said = capsys.readouterr().out
    assert "The SAE is not saved. The newest checkpoint is in 'my-run': the same command goes on from it." in said
    assert checkpoints.listed("my-run") and not Path("my-sae").exists()
    assert given(PAGE.replace("2_000", "50_000"), monkeypatch) == 0
    assert "goes on at step" in capsys.readouterr().out


def test_what_is_not_kept_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").write_text("no folder")
    page = PAGE.replace('output = "my-sae"', "").replace('"my-run"', '"file/my-run"')
    assert given(page, monkeypatch) == 1
    told = capsys.readouterr()
    assert "Nothing is kept: no checkpoint was written." in told.out and "could not be written" in told.err


def test_a_folder_that_several_processes_wrote_is_the_jobs(here: Path) -> None:
    (here / "my-run" / "distributed-000000020").mkdir(parents=True)
    (here / "my-run" / "distributed-000000020" / ".metadata").touch()
    sae, x = sw.SAE(sw.SAEConfig(d_in=8, d_sae=16, k=2)), torch.randn(64, 8)
    for folder in ("my-run", "my-run/distributed-000000020"):
        with pytest.raises(ValueError, match=r"several processes together.*python -m saewidgets.training"):
            sw.resume_training(folder, x)
    with pytest.raises(ValueError, match="holds checkpoints of several processes already"):
        sw.train(sae, x, sw.TrainConfig(n_tokens=64, checkpoint_dir="my-run"))


def test_sigterm_is_ctrl_c(here: Path) -> None:
    """As schedulers and containers end a job."""
    Path("train.toml").write_text(PAGE.replace("2_000", "50_000_000").replace("n_logs = 4", "n_logs = 10_000"))
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "saewidgets.training", "train.toml"],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step "):
            process.terminate()
            break
    rest = process.stdout.read()
    assert process.wait(60) == 130 and "the same command goes on from it" in rest
    assert checkpoints.listed("my-run")
