"""The recipe of `diabetes_mlp.onnx`: a perceptron that foretells the progression of diabetes from ten measurements."""

import csv
from pathlib import Path

import numpy as np
import torch
from onnx_file import node, parameters_of, tensor, write
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split
from torch import nn

# Chosen by five-fold cross-validation on the training rows alone (R2 0.515 there; a linear regression: 0.506).
STEPS, LEARNING_RATE, WEIGHT_DECAY = 100, 1e-2, 2.0
ROWS = 5
# scikit-learn calls the last six s1 to s6; these are the meanings that its description of the data gives them.
COLUMNS = ("age", "sex", "bmi", "blood_pressure", "total_cholesterol", "ldl", "hdl", "cholesterol_ratio", "log_triglycerides", "glucose")


class Perceptron(nn.Module):
    """Features [N, 10] in the units they were measured in, to the progression [N, 1] in its own."""

    def __init__(self, features: torch.Tensor, progression: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("standardize_mean", features.mean(0))
        self.register_buffer("standardize_scale", features.std(0))
        self.register_buffer("restore_mean", progression.mean(0))
        self.register_buffer("restore_scale", progression.std(0))
        self.fc1 = nn.Linear(10, 16)
        self.fc2 = nn.Linear(16, 8)
        self.fc3 = nn.Linear(8, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        standard = (features - self.standardize_mean) / self.standardize_scale
        hidden = torch.tanh(self.fc2(torch.tanh(self.fc1(standard))))
        return self.fc3(hidden) * self.restore_scale + self.restore_mean


def train(features: torch.Tensor, progression: torch.Tensor) -> Perceptron:
    """The perceptron, trained in few steps with strong weight decay, lest it learn its 353 rows by heart."""
    torch.manual_seed(0)
    model = Perceptron(features, progression)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        loss = nn.functional.mse_loss(model(features) / model.restore_scale, progression / model.restore_scale)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def make(folder: Path) -> str:
    """Train, write the model with five held-out patients, and say how well it does beside a linear regression."""
    data = load_diabetes(scaled=False)
    features, progression = data.data.astype(np.float32), data.target.astype(np.float32)[:, None]
    learn, held_out = train_test_split(np.arange(len(features)), test_size=0.2, random_state=0)
    model = train(torch.from_numpy(features[learn]), torch.from_numpy(progression[learn]))
    with torch.no_grad():
        errors = model(torch.from_numpy(features[held_out])).numpy() - progression[held_out]
    score = 1 - (errors**2).sum() / ((progression[held_out] - progression[held_out].mean()) ** 2).sum()
    linear = LinearRegression().fit(features[learn], progression[learn])
    baseline = linear.score(features[held_out], progression[held_out])

    # standardize_mean -> standardize.mean, as if the scaling were a layer
    parameters = {name.replace("_", ".", 1): value for name, value in parameters_of(model).items()}
    nodes = [
        node("Sub", ["features", "standardize.mean"], "centered", name="center"),
        node("Div", ["centered", "standardize.scale"], "standardized", name="standardize"),
        node("Gemm", ["standardized", "fc1.weight", "fc1.bias"], "fc1", transB=1),
        node("Tanh", ["fc1"], "tanh1"),
        node("Gemm", ["tanh1", "fc2.weight", "fc2.bias"], "fc2", transB=1),
        node("Tanh", ["fc2"], "tanh2"),
        node("Gemm", ["tanh2", "fc3.weight", "fc3.bias"], "fc3", transB=1),
        node("Mul", ["fc3", "restore.scale"], "scaled", name="scale"),
        node("Add", ["scaled", "restore.mean"], "progression", name="restore"),
    ]
    write(
        folder / "diabetes_mlp.onnx",
        nodes,
        tensor("features", ["N", len(COLUMNS)]),
        tensor("progression", ["N", 1]),
        parameters,
        {"features": ",".join(COLUMNS), "test_r2": f"{score:.4f}"},
        model,
        features[held_out],
    )
    with (folder / "diabetes.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        rows.writerows([f"{number:g}" for number in row] for row in features[held_out[:ROWS]].tolist())
    return (
        f"diabetes_mlp: test R2 {score:.3f}, mean absolute error {np.abs(errors).mean():.1f} "
        f"on {len(held_out)} held-out patients (linear regression: R2 {baseline:.3f})"
    )
