"""Train the demo model's tokenizer: a byte-level BPE of 4,096 tokens, nothing taken from another vocabulary.

Id 0 is `<|endoftext|>`, which begins every story and ends it (BOS, EOS and padding at once). Every byte is a token, so
there is no unknown text and `decode(encode(text)) == text`.

    python -m saewidgets.models.demo.make_tokenizer stories-sampled.txt data/model --held-out data/text/held_out.txt
"""

import argparse
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from saewidgets.models.demo.make_text import SEPARATOR, read_stories


def train_tokenizer(stories: list[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE trained on `stories`. Training has no random choice: the same text gives the same merges."""
    tokenizer = Tokenizer(models.BPE())
    # No prefix space: the first word of a story is "Once", a later one " once", and decoding gives the text back.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[SEPARATOR],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(stories, trainer, length=len(stories))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SEPARATOR} $A", pair=f"{SEPARATOR} $A {SEPARATOR} $B", special_tokens=[(SEPARATOR, 0)]
    )
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="stories, separated by lines <|endoftext|>")
    parser.add_argument("output", type=Path, help="folder that gets tokenizer.json and tokenizer_config.json")
    parser.add_argument("--held-out", type=Path, help="stories to leave out")
    parser.add_argument("--vocab-size", type=int, default=4096)
    args = parser.parse_args()

    held_out = set(read_stories(args.held_out)) if args.held_out else set()
    stories = [story for story in read_stories(args.text) if story not in held_out]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(stories, args.vocab_size),
        bos_token=SEPARATOR,
        eos_token=SEPARATOR,
        pad_token=SEPARATOR,
        add_bos_token=True,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )
    args.output.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(args.output)

    # The folder is what others load, so the folder is what is checked.
    loaded = AutoTokenizer.from_pretrained(args.output)
    probes = [*stories[:2000], "", " ", "\n\n  two  spaces ", "naïve 日本語 🦊 \u202eabc", "<script>alert(1)</script>"]
    for probe in probes:
        ids = loaded(probe)["input_ids"]
        if ids[0] != 0 or 0 in ids[1:] or loaded.decode(ids[1:]) != probe:
            text = loaded.decode(ids[1:])
            raise SystemExit(f"The tokenizer does not give back {probe!r}: ids {ids}, text {text!r}.")
    tokens = sum(len(ids) - 1 for ids in loaded(stories[:2000])["input_ids"])
    size = sum(len(story.encode()) for story in stories[:2000])
    print(f"{len(loaded)} tokens, {size / tokens:.3f} bytes per token, {len(probes)} texts round-trip")


if __name__ == "__main__":
    main()
