"""The Triton kernels against torch's: run by Triton's interpreter on this CPU, compiled for a GPU, run on one if there.

All of it happens in other processes, see `triton_cases.py`: TRITON_INTERPRET is read when triton is imported. The
interpreter shows that the kernels are right; only the compiler shows that a GPU would get them at all.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from unittest import mock

import pytest
import torch

from saewidgets.sae import kernels
from saewidgets.sae.kernels import Places

from .triton_cases import COMPILED, INTERPRETED

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed (it has no packages for this system, or the extra saewidgets[gpu] was left out)",
)


def old_interpreter() -> bool:
    if importlib.util.find_spec("triton") is None:
        return False
    triton, numpy = (tuple(map(int, version(name).split(".")[:2])) for name in ("triton", "numpy"))
    return triton < (3, 7) and numpy >= (2, 4)


def in_another_process(what: str, home: Path, **environment: str) -> dict[str, str | None]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("triton_cases.py")), what],
        env={**os.environ, "TRITON_CACHE_DIR": str(home), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told: dict[str, str | None] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.fixture(scope="module")
def under_interpreter(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    return in_another_process("interpret", tmp_path_factory.mktemp("triton"), TRITON_INTERPRET="1")


@pytest.fixture(scope="module")
def by_compiler(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    return in_another_process("compile", tmp_path_factory.mktemp("triton"), TRITON_INTERPRET="0")


@needs_triton
@pytest.mark.skipif(
    old_interpreter(), reason="the interpreter of triton before 3.7 does not work with numpy 2.4 or newer"
)
@pytest.mark.parametrize("case", INTERPRETED)
def test_under_the_interpreter(case: str, under_interpreter: dict[str, str | None]) -> None:
    assert under_interpreter[case] is None, under_interpreter[case]


@needs_triton
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_on_a_gpu(tmp_path: Path) -> None:
    told = in_another_process("gpu", tmp_path, TRITON_INTERPRET="0")
    assert not any(told.values()), "\n".join(filter(None, told.values()))


@needs_triton
@pytest.mark.parametrize("case", COMPILED)
def test_compiles_for_a_gpu(case: str, by_compiler: dict[str, str | None]) -> None:
    assert by_compiler[case] is None, by_compiler[case]


def test_torch_s_kernels_are_taken_on_a_cpu_and_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[str] = []
    monkeypatch.setattr(kernels, "_triton", lambda: found.append("asked"))
    kernels.triton_for(torch.zeros(1))
    assert not found
    monkeypatch.setattr(kernels, "INTERPRETED", True)
    kernels.triton_for(torch.zeros(1, dtype=torch.float64))
    assert not found
    kernels.triton_for(torch.zeros(1))
    assert found == ["asked"]


def test_a_triton_that_does_not_run_is_said_once_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(device: str) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC.")

    broken = mock.Mock(try_out=fails)
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(kernels.importlib, "import_module", lambda name: broken)
    monkeypatch.setattr(kernels, "INTERPRETED", True)
    monkeypatch.delenv("SAEWIDGETS_KERNELS", raising=False)
    kernels._triton.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match=r"do not run here \(RuntimeError: Failed to find C compiler\.\)"):
            assert kernels.triton_for(torch.zeros(1)) is None
        places = Places.even(torch.tensor([[1, 0]]), 2)
        assert places.sum_by_vector(torch.ones(1, 2), torch.eye(2)).tolist() == [[1.0, 1.0]]
        broken.try_out = lambda device: None
        kernels._triton.cache_clear()
        assert kernels.triton_for(torch.zeros(1)) is broken
        monkeypatch.setenv("SAEWIDGETS_KERNELS", "torch")
        kernels._triton.cache_clear()
        assert kernels.triton_for(torch.zeros(1)) is None
    finally:
        kernels._triton.cache_clear()
