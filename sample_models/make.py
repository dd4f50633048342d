"""Trains every sample model again and writes it with its input file into this folder: `python sample_models/make.py`.

Needs PyTorch, scikit-learn, onnx and onnxruntime; downloads nothing. Each model's recipe is the module of its name.
"""

from pathlib import Path

import diabetes_mlp
import digits_cnn
import pendulum_lstm
import sentiment_attention
import torch


def main() -> None:
    """Make all models, one after the other, and print a line for each."""
    folder = Path(__file__).resolve().parent
    # One thread: the order of a sum is then the same on every run, and so are the trained weights.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for recipe in (digits_cnn, diabetes_mlp, sentiment_attention, pendulum_lstm):
        print(recipe.make(folder), flush=True)


if __name__ == "__main__":
    main()
