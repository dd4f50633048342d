"""The recipe of `digits_cnn.onnx`: a convolutional network that reads handwritten digits of 28x28 pixels."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from onnx_file import node, parameters_of, tensor, write
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

EPOCHS = 25
BATCH = 64


def network() -> nn.Sequential:
    """Images [N, 1, 28, 28] to logits [N, 10]; in training, the softmax is part of the loss."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 8, 3, padding=1),
            bn1=nn.BatchNorm2d(8),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 16, 3, padding=1),
            bn2=nn.BatchNorm2d(16),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            conv3=nn.Conv2d(16, 16, 3, padding=1),
            bn3=nn.BatchNorm2d(16),
            relu3=nn.ReLU(),
            flatten=nn.Flatten(),
            fc=nn.Linear(16 * 7 * 7, 10),
        )
    )


def images_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """scikit-learn's digits, 8x8 with values 0 to 16, as [1797, 1, 28, 28] with values 0 to 1, and their labels."""
    digits = load_digits()
    images = torch.from_numpy(digits.images.astype(np.float32) / 16).unsqueeze(1)
    images = nn.functional.interpolate(images, size=(28, 28), mode="bilinear", align_corners=False)
    return images, torch.from_numpy(digits.target.astype(np.int64))


def train(images: torch.Tensor, labels: torch.Tensor) -> nn.Sequential:
    """The network, trained and in eval mode."""
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images)).split(BATCH):
            # Smoothed labels keep the softmax from saturating, so that its gradients stay worth looking at.
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def make(folder: Path) -> str:
    """Train, write the model with one and with four held-out digits, and say how well it does."""
    images, labels = images_and_labels()
    learn, held_out = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    model = train(images[learn], labels[learn])
    with torch.no_grad():
        accuracy = (model(images[held_out]).argmax(1) == labels[held_out]).double().mean().item()

    nodes = []
    value = "image"
    for block in (1, 2, 3):
        conv, bn, relu, pool = f"conv{block}", f"bn{block}", f"relu{block}", f"pool{block}"
        statistics = [f"{bn}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
        nodes += [
            node("Conv", [value, f"{conv}.weight", f"{conv}.bias"], conv, kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("BatchNormalization", [conv, *statistics], bn, epsilon=1e-5),
            node("Relu", [bn], relu),
        ]
        value = relu
        if block < 3:
            nodes.append(node("MaxPool", [relu], pool, kernel_shape=[2, 2], strides=[2, 2]))
            value = pool
    nodes += [
        node("Flatten", [value], "flatten", axis=1),
        node("Gemm", ["flatten", "fc.weight", "fc.bias"], "logits", name="fc", transB=1),
        node("Softmax", ["logits"], "probabilities", name="softmax", axis=1),
    ]
    four = images[held_out[:4]].numpy()
    write(
        folder / "digits_cnn.onnx",
        nodes,
        tensor("image", ["N", 1, 28, 28]),
        tensor("probabilities", ["N", 10]),
        parameters_of(model),
        {"classes": ",".join("0123456789"), "test_accuracy": f"{accuracy:.4f}"},
        nn.Sequential(model, nn.Softmax(dim=1)),
        images[held_out].numpy(),
    )
    np.save(folder / "digits.npy", four[:1])
    np.save(folder / "digits_batch.npy", four)
    shown = ", ".join(str(label) for label in labels[held_out[:4]].tolist())
    return f"digits_cnn: test accuracy {accuracy:.1%} on {len(held_out)} held-out digits; the batch shows {shown}"
