"""The recipe of `sentiment_attention.onnx`: does a short review praise or complain? One head of self-attention.

The reviews are synthetic: `review` draws them from a small grammar in which `not` turns a clause around and, after
`but`, the last clause decides. So no single word gives the answer away, and attention has something to do.
"""

import math
import random
from pathlib import Path

import numpy as np
import torch
from onnx import NodeProto, TensorProto
from onnx_file import constant, node, parameters_of, tensor, write
from torch import nn

NOUNS = ["food", "service", "room", "view", "music", "staff", "breakfast", "coffee", "soup", "garden", "film", "hotel"]
PRAISE = ["good", "great", "lovely", "excellent", "wonderful", "pleasant", "superb", "delightful"]
BLAME = ["bad", "awful", "dull", "terrible", "dirty", "rude", "poor", "boring"]
DEGREES = ["very", "really", "quite", "so"]
PAD = 0
VOCABULARY = ["<pad>", "the", "was", "not", "and", "but", *DEGREES, *NOUNS, *PRAISE, *BLAME]
LENGTH = 12
WIDTH = 32
REVIEWS, HELD_OUT = 7000, 1000
EPOCHS, BATCH = 20, 64


def clause(positive: bool, draw: random.Random) -> list[str]:
    """Words such as `food was not very good`."""
    negated = draw.random() < 0.4
    words = [draw.choice(NOUNS), "was"] + ["not"] * negated
    words += [draw.choice(DEGREES)] * (draw.random() < 0.5)
    return [*words, draw.choice(PRAISE if positive != negated else BLAME)]


def review(draw: random.Random) -> tuple[tuple[str, ...], int]:
    """At most twelve words and their label: 1 for praise, 0 for a complaint."""
    positive = draw.random() < 0.5
    words = clause(positive, draw)
    if draw.random() < 0.75:
        contrast = draw.random() < 0.5
        words = [*clause(positive != contrast, draw), "but" if contrast else "and", *words]
    return tuple(["the"] * (draw.random() < 0.5) + words), int(positive)


def tokens_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [7000, 12] of reviews that all differ, so that none is both learnt and held out, and their labels."""
    draw = random.Random(0)
    reviews: dict[tuple[str, ...], int] = {}
    while len(reviews) < REVIEWS:
        words, label = review(draw)
        reviews[words] = label
    index = {word: token for token, word in enumerate(VOCABULARY)}
    tokens = [[index[word] for word in words] + [PAD] * (LENGTH - len(words)) for words in reviews]
    return torch.tensor(tokens), torch.tensor(list(reviews.values()))


class Attention(nn.Module):
    """Single-head self-attention that looks away from padding."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, embedded: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        scores = self.query(embedded) @ self.key(embedded).transpose(1, 2) / math.sqrt(WIDTH)
        weights = scores.masked_fill(padding[:, None, :], -1e9).softmax(-1)
        return self.output(weights @ self.value(embedded))


class Classifier(nn.Module):
    """Tokens [N, 12] to logits [N, 2]: embedding, attention, layer norm, hidden layer, mean over the words, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(VOCABULARY), WIDTH)
        self.position = nn.Embedding(LENGTH, WIDTH)
        self.attention = Attention()
        self.norm = nn.LayerNorm(WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.classifier = nn.Linear(WIDTH, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        padding = tokens == PAD
        embedded = self.embedding(tokens) + self.position.weight
        hidden = torch.relu(self.hidden(self.norm(embedded + self.attention(embedded, padding))))
        words = (~padding)[:, :, None].float()
        return self.classifier((hidden * words).sum(1) / words.sum(1))


def train(tokens: torch.Tensor, labels: torch.Tensor) -> Classifier:
    """The classifier, trained and in eval mode."""
    torch.manual_seed(0)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(tokens)).split(BATCH):
            loss = nn.functional.cross_entropy(model(tokens[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def linear(value: str, layer: str) -> list[NodeProto]:
    """A linear layer over the last axis, as its own two nodes; the second has the layer's name."""
    return [node("MatMul", [value, f"{layer}.weight"], f"{layer}.matmul"), node("Add", [f"{layer}.matmul", f"{layer}.bias"], layer)]


def graph_nodes() -> list[NodeProto]:
    """The classifier in ONNX."""
    return [
        constant("pad_token", PAD, np.int64),
        constant("key_axis", [1], np.int64),
        constant("width_axis", [2], np.int64),
        constant("word_axis", [1], np.int64),
        constant("far_below", -1e9, np.float32),
        constant("root_width", math.sqrt(WIDTH), np.float32),
        node("Equal", ["tokens", "pad_token"], "padding"),
        node("Gather", ["embedding.weight", "tokens"], "embedding", axis=0),
        node("Add", ["embedding", "position.weight"], "embedded", name="position"),
        *linear("embedded", "attention.query"),
        *linear("embedded", "attention.key"),
        *linear("embedded", "attention.value"),
        node("Transpose", ["attention.key"], "attention.key.transposed", perm=[0, 2, 1]),
        node("MatMul", ["attention.query", "attention.key.transposed"], "attention.products"),
        node("Div", ["attention.products", "root_width"], "attention.scores"),
        node("Unsqueeze", ["padding", "key_axis"], "attention.padding"),
        node("Where", ["attention.padding", "far_below", "attention.scores"], "attention.masked"),
        node("Softmax", ["attention.masked"], "attention.weights", axis=-1),
        node("MatMul", ["attention.weights", "attention.value"], "attention.context"),
        *linear("attention.context", "attention.output"),
        node("Add", ["embedded", "attention.output"], "residual"),
        node("LayerNormalization", ["residual", "norm.weight", "norm.bias"], "norm", axis=-1, epsilon=1e-5),
        *linear("norm", "hidden"),
        node("Relu", ["hidden"], "relu"),
        node("Not", ["padding"], "is_word"),
        node("Cast", ["is_word"], "words_flat", to=TensorProto.FLOAT),
        node("Unsqueeze", ["words_flat", "width_axis"], "words"),
        node("Mul", ["relu", "words"], "kept"),
        node("ReduceSum", ["kept", "word_axis"], "total", keepdims=0),
        node("ReduceSum", ["words", "word_axis"], "count", keepdims=0),
        node("Div", ["total", "count"], "pooled"),
        node("Gemm", ["pooled", "classifier.weight", "classifier.bias"], "logits", name="classifier", transB=1),
    ]


def make(folder: Path) -> str:
    """Train, write the model with four held-out reviews, and say how well it does."""
    tokens, labels = tokens_and_labels()
    model = train(tokens[:-HELD_OUT], labels[:-HELD_OUT])
    held_out = tokens[-HELD_OUT:]
    with torch.no_grad():
        accuracy = (model(held_out).argmax(1) == labels[-HELD_OUT:]).double().mean().item()

    # A MatMul over [N, 12, 32] wants its weight [in, out], where PyTorch keeps [out, in]; Gemm takes PyTorch's.
    flipped = {f"attention.{name}.weight" for name in ("query", "key", "value", "output")} | {"hidden.weight"}
    parameters = {name: array.T if name in flipped else array for name, array in parameters_of(model).items()}
    write(
        folder / "sentiment_attention.onnx",
        graph_nodes(),
        tensor("tokens", ["N", LENGTH], TensorProto.INT64),
        tensor("logits", ["N", 2]),
        parameters,
        {"vocabulary": ",".join(VOCABULARY), "classes": "complaint,praise", "test_accuracy": f"{accuracy:.4f}"},
        model,
        held_out.numpy(),
    )
    np.save(folder / "tokens.npy", held_out[:4].numpy())
    shown = " / ".join(" ".join(VOCABULARY[token] for token in row if token != PAD) for row in held_out[:4].tolist())
    return f"sentiment_attention: test accuracy {accuracy:.1%} on {HELD_OUT} held-out reviews; tokens.npy: {shown}"
