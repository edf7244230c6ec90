"""Train the demo model: a small Llama with our own 4,096 tokens, started from stories15M and taught by it.

Start: the six blocks and the final norm of stories15M; each new token's embedding is the old token of the same string,
else the mean of its Llama pieces. Loss: next-token cross entropy, plus `weight` times the squared distance between the
student's and the frozen teacher's final hidden states, relative to the teacher's mean square, at the places where a
token of each ends at the same character and the next two tokens do so as well (there both predict the same string).
The weight falls linearly to zero at `--distil-until` of the run; from there on the text alone teaches.

A row is one story from its start (BOS story EOS), or, one time in five, from a later token on, so that the model also
knows texts that begin in the middle. Rows of similar length share a batch. The schedule follows the clock (the machine
is shared): learning rates fall as a cosine of elapsed / budget, and the log holds what each step had. Weights,
gradients and the optimiser are float32; `--bfloat16` runs the student's matrix products in bfloat16 (1.8 times the
tokens a second on a CPU that has the instruction). `--start` goes on from an earlier run's weights.

    python -m saewidgets.models.demo.train_model stories-sampled.txt stories15M data/model \\
        --held-out data/text/held_out.txt \\
        --score-text tinystories-1000.txt --minutes 45 --log loss_curve.csv
"""

import argparse
import csv
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from saewidgets.models.demo.align_tokens import Batch, align, batches
from saewidgets.models.demo.make_text import read_stories
from saewidgets.models.demo.score_model import bits_per_byte

COLUMNS = ("minutes", "step", "tokens", "lr_blocks", "cross_entropy", "distance", "bits_per_byte")


def start_model(teacher: LlamaForCausalLM, old: Tokenizer, new: Tokenizer) -> LlamaForCausalLM:
    """The student before its first step; prints how many of its tokens the teacher has too."""
    ids = {"vocab_size": new.get_vocab_size(), "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    config = LlamaConfig(**{**teacher.config.to_dict(), **ids, "dtype": "float32"})
    student = LlamaForCausalLM(config)
    weights = {k: v for k, v in teacher.state_dict().items() if "embed_tokens" not in k and "lm_head" not in k}
    student.load_state_dict(weights, strict=False)
    source, vocab, shared = teacher.get_input_embeddings().weight.detach(), old.get_vocab(), 0
    # GPT-2's table from printable characters to bytes, as the byte-level pre-tokenizer uses it.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    table = {chr(b): b for b in plain} | {chr(256 + n): b for n, b in enumerate(others)}
    target = torch.empty(config.vocab_size, config.hidden_size)
    for token, i in new.get_vocab().items():
        raw = b"" if i == 0 else bytes(table[c] for c in token)
        try:
            text = raw.decode().replace(" ", "▁")
            pieces = [vocab["<s>"]] if i == 0 else [t.id for t in old.model.tokenize(text)]
        except UnicodeDecodeError:  # part of a character
            pieces = [vocab[f"<0x{b:02X}>"] for b in raw]
        target[i] = source[pieces].mean(0)
        shared += len(pieces) == 1
    student.get_input_embeddings().weight.data.copy_(target)
    student.tie_weights()
    print(f"{shared} of {config.vocab_size} tokens are also Llama 2 tokens; {student.num_parameters()} parameters")
    return student


def losses(
    student: LlamaForCausalLM, teacher: LlamaForCausalLM, batch: Batch, with_teacher: bool, bfloat16: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """(cross entropy in nats per token, relative squared distance of the hidden states, zero without the teacher)."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        hidden = student.model(input_ids=batch.student, use_cache=False).last_hidden_state
        picked, targets = hidden[:, :-1][batch.valid], batch.student[:, 1:][batch.valid]
        logits = picked @ student.get_input_embeddings().weight.T
    cross_entropy = F.cross_entropy(logits.float(), targets)
    if not with_teacher:
        return cross_entropy, torch.zeros(())
    with torch.no_grad():
        goal = teacher.model(input_ids=batch.teacher, use_cache=False).last_hidden_state.flatten(0, 1)[batch.right]
    return cross_entropy, (hidden.flatten(0, 1)[batch.left].float() - goal).square().mean() / goal.square().mean()


def save(model: LlamaForCausalLM, folder: Path) -> None:
    """Write fp16 weights and config; the weights file is replaced in one step, so that a reader never sees half."""
    scratch = folder.parent / f".{folder.name}.{os.getpid()}"
    half = LlamaForCausalLM(model.config).half()
    half.load_state_dict(model.state_dict())
    half.save_pretrained(scratch)
    folder.mkdir(parents=True, exist_ok=True)
    for file in scratch.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone
        file.replace(folder / file.name)
    scratch.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="stories to train on, separated by lines <|endoftext|>")
    parser.add_argument("teacher", type=Path, help="folder of stories15M")
    parser.add_argument("output", type=Path, help="folder that holds tokenizer.json and gets the weights")
    parser.add_argument("--held-out", type=Path, required=True, help="stories to leave out")
    parser.add_argument("--score-text", type=Path, required=True, help="stories for the logged curve")
    parser.add_argument("--score-stories", type=int, default=60, help="how many of them, from the first")
    parser.add_argument("--log", type=Path, required=True, help="CSV of the run")
    parser.add_argument("--start", type=Path, help="weights of an earlier run, in place of the teacher's blocks")
    parser.add_argument("--bfloat16", action="store_true", help="the student's matrix products in bfloat16")
    parser.add_argument("--minutes", type=float, default=45)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--embedding-steps", type=int, default=60, help="first steps, in which only they learn")
    parser.add_argument("--warmup-steps", type=int, default=50)
    parser.add_argument("--lr-embedding", type=float, default=5e-4)
    parser.add_argument("--lr-blocks", type=float, default=1e-4)
    parser.add_argument("--distil", type=float, default=3.0, help="weight of the hidden-state distance at the start")
    parser.add_argument("--distil-until", type=float, default=0.7, help="part of the run at which it is zero")
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument("--stories", type=int, help="only so many stories, for a trial")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    torch.set_num_threads(2)
    old, new = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (args.teacher, args.output))
    left_out = set(read_stories(args.held_out))
    texts = [story for story in read_stories(args.text) if story not in left_out][: args.stories]
    stories = align(texts, new, old)
    scored = read_stories(args.score_text)[: args.score_stories]
    teacher = LlamaForCausalLM.from_pretrained(args.teacher, dtype=torch.float32).eval().requires_grad_(False)
    if args.start:
        student = LlamaForCausalLM.from_pretrained(args.start, dtype=torch.float32)
    else:
        student = start_model(teacher, old, new)
    embedding = student.get_input_embeddings().weight
    blocks = [p for p in student.parameters() if p is not embedding]
    optimizer = torch.optim.AdamW(
        [{"params": [embedding], "base": args.lr_embedding}, {"params": blocks, "base": args.lr_blocks}],
        betas=(0.9, 0.95),
        weight_decay=0.0,
        fused=True,
    )

    with open(args.log, "w", newline="") as log:
        writer = csv.DictWriter(log, COLUMNS)
        writer.writeheader()
        start, tokens, saved, due = time.monotonic(), 0, 0.0, 0.0
        seen: list[tuple[float, float]] = []
        for step, batch in enumerate(batches(stories, args.batch_tokens, teacher.config.bos_token_id, args.seed)):
            minutes = (time.monotonic() - start) / 60
            part = min(minutes / args.minutes, 1.0)
            for group, begin in zip(optimizer.param_groups, (0, args.embedding_steps), strict=True):
                # Each group warms up from its own first step: Adam's first steps are of full size for any gradient.
                warm = min(1.0, max(0, step + 1 - begin) / args.warmup_steps)
                group["lr"] = group["base"] * warm * (0.1 + 0.9 * (1 + math.cos(math.pi * part)) / 2)

            if minutes >= due or part == 1.0:
                ce, distance = np.mean(seen, axis=0) if seen else (math.nan, math.nan)
                score = bits_per_byte(student, new, 0, scored)
                lr = f"{optimizer.param_groups[1]['lr']:.2e}"
                values = (f"{minutes:.1f}", step, tokens, lr, f"{ce:.4f}", f"{distance:.4f}", f"{score:.4f}")
                writer.writerow(dict(zip(COLUMNS, values, strict=True)))
                log.flush()
                print(*(f"{name} {value}" for name, value in zip(COLUMNS, values, strict=True)), sep="  ", flush=True)
                seen, due = [], minutes + (0.5 if minutes < 3 else 2.5)
            if part == 1.0 or minutes - saved >= args.save_minutes:
                save(student, args.output)
                saved = minutes
            if part == 1.0:
                break

            for parameter in blocks:
                parameter.requires_grad_(step >= args.embedding_steps)
            weight = args.distil * max(0.0, 1 - part / args.distil_until)
            cross_entropy, distance = losses(student, teacher, batch, weight > 0, args.bfloat16)
            optimizer.zero_grad()
            (cross_entropy + weight * distance).backward()
            torch.nn.utils.clip_grad_norm_([p for p in student.parameters() if p.grad is not None], 1.0)
            optimizer.step()
            tokens += int(batch.valid.sum())
            seen.append((cross_entropy.item(), distance.item()))


if __name__ == "__main__":
    main()
