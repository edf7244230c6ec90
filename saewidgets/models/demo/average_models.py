"""Average the weights of models that were trained on from one another: a model soup (Wortsman et al. 2022).

Runs that share their start lie in one valley of the loss, and their mean lies lower in it than either: what each has
learned by heart of its last stories averages out.

    python -m saewidgets.models.demo.average_models run_1 run_2 data/model
"""

import argparse
from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from saewidgets.models.demo.train_model import save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="+", help="folders of models of one shape")
    parser.add_argument("output", type=Path, help="folder that gets the weights")
    asked = parser.parse_args()
    mean = LlamaForCausalLM.from_pretrained(asked.models[0], dtype=torch.float32)
    states = [LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict() for folder in asked.models]
    mean.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    save(mean, asked.output)


if __name__ == "__main__":
    main()
