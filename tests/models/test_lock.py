"""The lock: what one thread does to the model never shows in another's forward."""

from __future__ import annotations

import copy
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from saewidgets.activations import harvest, hook_site
from saewidgets.models import forward_hooks, lock_of, share, to_ids
from saewidgets.models.fair_lock import FairLock
from saewidgets.models.lock import token_positions

HOOK = "blocks.2.hook_resid_post"


def in_threads(*jobs: Callable[[], Any]) -> list[Any]:
    """Run the jobs at once; their results, or the first error."""
    results: list[Any] = [None] * len(jobs)
    errors: list[BaseException] = []

    def run(i: int, job: Callable[[], Any]) -> None:
        try:
            results[i] = job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i, job), daemon=True) for i, job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "a thread never came back"
    if errors:
        raise errors[0]
    return results


def shift(x: torch.Tensor, hook: Any) -> torch.Tensor:
    return x + 3.0


def test_harvest_is_bit_equal_while_another_thread_steers_and_generates(demo_model: Any) -> None:
    site = hook_site(demo_model, HOOK)
    tokens = to_ids(demo_model, "Once upon a time there was a little bridge and a cat.").repeat(2, 1)
    prompt = to_ids(demo_model, "Once upon a time")
    alone = harvest(demo_model, tokens, site)
    with torch.no_grad():
        logits_alone = demo_model(tokens)
        with forward_hooks(demo_model, [(HOOK, shift)]):
            steered_alone = demo_model.generate(
                prompt, max_new_tokens=12, do_sample=False, verbose=False, return_type="tokens"
            )
    plain_alone = demo_model.generate(prompt, max_new_tokens=12, do_sample=False, verbose=False, return_type="tokens")
    assert not torch.equal(steered_alone, plain_alone)
    stop = threading.Event()

    def steer() -> list[torch.Tensor]:
        said = []
        while not stop.is_set():
            with forward_hooks(demo_model, [(HOOK, shift)]):
                said.append(
                    demo_model.generate(prompt, max_new_tokens=12, do_sample=False, verbose=False, return_type="tokens")
                )
        return said

    def generate() -> list[torch.Tensor]:
        said = []
        while not stop.is_set():
            said.append(
                demo_model.generate(prompt, max_new_tokens=12, do_sample=False, verbose=False, return_type="tokens")
            )
        return said

    def look() -> list[torch.Tensor]:
        try:
            found = [harvest(demo_model, tokens, site) for _ in range(60)]
            with torch.no_grad():
                found += [demo_model.run_with_cache(tokens, names_filter=HOOK)[1][HOOK] for _ in range(10)]
            return found
        finally:
            stop.set()

    def predict() -> list[torch.Tensor]:
        with torch.no_grad():
            return [demo_model(tokens) for _ in range(20)]

    steered, plain, harvested, predicted = in_threads(steer, generate, look, predict)
    assert all(torch.equal(found, alone) for found in harvested)
    assert all(torch.equal(logits, logits_alone) for logits in predicted)
    assert steered and all(torch.equal(said, steered_alone) for said in steered)
    assert plain and all(torch.equal(said, plain_alone) for said in plain)


def test_hooks_belong_to_the_thread_that_hung_them_up(demo_model: Any) -> None:
    tokens = to_ids(demo_model, "The cat sat.")
    with torch.no_grad():
        plain = demo_model(tokens)
        with forward_hooks(demo_model, [(HOOK, shift)]):
            steered = demo_model(tokens)
            (other,) = in_threads(lambda: demo_model(tokens).detach())
            cached, cache = demo_model.run_with_cache(tokens, names_filter=HOOK)
        after = demo_model(tokens)
    assert not torch.equal(steered, plain)
    assert torch.equal(cached, steered)
    assert torch.equal(other, plain)
    assert torch.equal(after, plain)
    assert not any(point.fwd_hooks for point in demo_model.hook_dict.values())


def test_nested_hooks_add_up_and_an_error_takes_them_down(demo_model: Any) -> None:
    tokens = to_ids(demo_model, "The cat sat.")
    seen: list[str] = []

    def note(name: str) -> Callable[..., None]:
        return lambda x, hook: seen.append(name)

    with forward_hooks(demo_model, [(HOOK, note("outer"))]):
        with forward_hooks(demo_model, [(HOOK, note("inner"))]):
            demo_model(tokens)
        demo_model(tokens)
    assert seen == ["outer", "inner", "outer"]

    def fail(x: torch.Tensor, hook: Any) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"), forward_hooks(demo_model, [(HOOK, fail)]):
        demo_model(tokens)
    demo_model(tokens)
    assert not any(point.fwd_hooks for point in demo_model.hook_dict.values())


def test_a_forward_inside_a_hook_applies_hooks_once(demo_model: Any) -> None:
    tokens = to_ids(demo_model, "The cat sat.")
    inner: list[torch.Tensor] = []

    def look_inside(x: torch.Tensor, hook: Any) -> None:
        if not inner:
            inner.append(torch.empty(0))
            inner.append(demo_model(tokens))

    with torch.no_grad():
        with forward_hooks(demo_model, [(HOOK, shift)]):
            steered = demo_model(tokens)
        with forward_hooks(demo_model, [(HOOK, shift), ("blocks.3.hook_resid_pre", look_inside)]):
            demo_model(tokens)
    assert torch.equal(inner[1], steered)


def test_start_at_layer_skips_the_hooks_before_it(demo_model: Any) -> None:
    tokens = to_ids(demo_model, "The cat sat.")
    fired: list[str] = []
    names = ["hook_embed", "blocks.0.hook_resid_post", "blocks.3.hook_resid_post"]
    hooks = [(name, lambda x, hook, name=name: fired.append(name)) for name in names]
    with torch.no_grad():
        resid = demo_model(tokens, stop_at_layer=3)
        with forward_hooks(demo_model, hooks):
            demo_model(resid, start_at_layer=3)
    assert fired == ["blocks.3.hook_resid_post"]


def test_positions_are_absolute_with_a_cache_and_with_left_padding(demo_model: Any) -> None:
    seen: list[list[list[int]]] = []

    def note(x: torch.Tensor, hook: Any) -> None:
        seen.append(token_positions(demo_model, x.shape[1]).tolist())

    tokens = to_ids(demo_model, "Once upon a time")
    n = tokens.shape[1]
    with forward_hooks(demo_model, [(HOOK, note)]):
        demo_model.generate(tokens, max_new_tokens=3, do_sample=False, verbose=False, stop_at_eos=False)
    assert seen == [[list(range(n))], [[n]], [[n + 1]]]
    seen.clear()
    padded = torch.cat([torch.zeros(1, 2, dtype=torch.long), tokens], dim=1)
    mask = torch.tensor([[0, 0] + [1] * n])
    with torch.no_grad(), forward_hooks(demo_model, [(HOOK, note)]):
        demo_model(padded, attention_mask=mask)
    assert seen[0][0][2:] == list(range(n))


def test_hooks_of_transformer_lens_hold_the_lock(demo_model: Any) -> None:
    tokens = to_ids(demo_model, "The cat sat.")
    with torch.no_grad():
        plain = demo_model(tokens)
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with demo_model.hooks(fwd_hooks=[(HOOK, shift)]):
            inside.set()
            go_on.wait(0.3)

    def run() -> torch.Tensor:
        inside.wait(30)
        with torch.no_grad():
            logits: torch.Tensor = demo_model(tokens)
        assert not demo_model.hook_dict[HOOK].fwd_hooks
        return logits

    assert torch.equal(in_threads(hold, run)[1], plain)


def test_the_lock_is_reentrant_and_fair() -> None:
    lock = FairLock()
    order: list[str] = []

    def greedy() -> None:
        for _ in range(5):
            with lock, lock:
                order.append("greedy")
                time.sleep(0.02)

    def patient() -> None:
        time.sleep(0.03)
        with lock:
            order.append("patient")

    in_threads(greedy, patient)
    assert order.index("patient") <= 3
    with pytest.raises(RuntimeError, match="does not hold it"):
        lock.release()


def test_an_interrupt_while_waiting_leaves_the_queue() -> None:
    lock = FairLock()
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            go_on.wait(30)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    held.wait(30)

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    go_on.set()
    holder.join(30)

    def take() -> str:
        with lock:
            return "taken"

    assert in_threads(take) == ["taken"]


def test_generate_shows_no_progress_bar_unless_asked(demo_model: Any, capfd: pytest.CaptureFixture[str]) -> None:
    assert demo_model.generate("Once", 3).startswith("Once")
    assert capfd.readouterr().err == ""
    demo_model.generate("Once", 3, verbose=True)
    assert "it/s" in capfd.readouterr().err


def test_sharing_twice_changes_nothing_and_a_copy_has_its_own_lock(demo_model: Any) -> None:
    assert share(demo_model) is demo_model
    assert lock_of(demo_model) is lock_of(demo_model)
    twin = copy.deepcopy(demo_model)
    assert lock_of(twin) is not lock_of(demo_model)
    tokens = to_ids(demo_model, "The cat sat.")
    with torch.no_grad():
        assert torch.equal(twin(tokens), demo_model(tokens))


def test_only_a_bridge_is_shared() -> None:
    with pytest.raises(TypeError, match="Expected a TransformerBridge, got Linear"):
        share(torch.nn.Linear(2, 2))


def test_an_unknown_hook_gets_the_nearest_names(demo_model: Any) -> None:
    with pytest.raises(ValueError, match=r"no hook named 'blocks.2.hook_resid_pots'.*'blocks.2.hook_resid_post'"):
        with forward_hooks(demo_model, [("blocks.2.hook_resid_pots", shift)]):
            pass
