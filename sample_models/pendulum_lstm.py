"""The recipe of `pendulum_lstm.onnx`: an LSTM that foretells the next angle of a damped pendulum from 32 noisy ones.

The series are synthetic: `swings` integrates the pendulum's equation of motion and adds the noise of a sensor.
"""

from pathlib import Path

import numpy as np
import torch
from onnx import helper
from onnx_file import constant, node, parameters_of, tensor, write
from torch import nn

PAST = 32
HIDDEN = 16
STEP = 0.1  # seconds between two readings
NOISE = 0.02  # radians, the standard deviation of a reading
SERIES, HELD_OUT = 6000, 500
EPOCHS, BATCH = 40, 64


def swings(count: int) -> np.ndarray:
    """Noisy angles [count, 33, 1] in radians of θ'' = -(g / l) sin θ - c θ', by the classical Runge-Kutta method."""
    draw = np.random.default_rng(0)
    stiffness = 9.81 / draw.uniform(0.5, 2.0, count)  # g / l, in 1 / s²
    damping = draw.uniform(0.05, 0.5, count)  # c, in 1 / s
    state = np.stack([draw.uniform(-2.0, 2.0, count), draw.uniform(-2.0, 2.0, count)])

    def change(state: np.ndarray) -> np.ndarray:
        angle, speed = state
        return np.stack([speed, -stiffness * np.sin(angle) - damping * speed])

    angles = [state[0]]
    for _ in range(PAST):
        first = change(state)
        second = change(state + STEP / 2 * first)
        third = change(state + STEP / 2 * second)
        fourth = change(state + STEP * third)
        state = state + STEP / 6 * (first + 2 * second + 2 * third + fourth)
        angles.append(state[0])
    exact = np.stack(angles, axis=1)
    return (exact + draw.normal(0, NOISE, exact.shape)).astype(np.float32)[:, :, None]


class Forecaster(nn.Module):
    """Series [N, 32, 1] to the next reading [N, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, HIDDEN, batch_first=True)
        self.fc = nn.Linear(HIDDEN, 1)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.lstm(series)
        return self.fc(hidden[0])


def train(series: torch.Tensor, following: torch.Tensor) -> Forecaster:
    """The forecaster, trained and in eval mode."""
    torch.manual_seed(0)
    model = Forecaster()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(series)).split(BATCH):
            loss = nn.functional.mse_loss(model(series[rows]), following[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def onnx_gates(array: np.ndarray) -> np.ndarray:
    """Rows in PyTorch's order of gates (input, forget, cell, output) in that of ONNX (input, output, forget, cell)."""
    gate_in, forget, cell, gate_out = np.split(array, 4)
    return np.concatenate([gate_in, gate_out, forget, cell])


def make(folder: Path) -> str:
    """Train, write the model with four held-out series, and say how well it does beside two simple guesses."""
    angles = swings(SERIES)
    series, following = angles[:, :PAST], angles[:, PAST]
    model = train(torch.from_numpy(series[:-HELD_OUT]), torch.from_numpy(following[:-HELD_OUT]))
    held_out, expected = np.ascontiguousarray(series[-HELD_OUT:]), following[-HELD_OUT:]
    with torch.no_grad():
        forecast = model(torch.from_numpy(held_out)).numpy()
    guesses = (forecast, held_out[:, -1], 2 * held_out[:, -1] - held_out[:, -2])
    error, repeat, extend = (float(np.sqrt(np.mean((guess - expected) ** 2))) for guess in guesses)

    trained = parameters_of(model)
    biases = [onnx_gates(trained["lstm.bias_ih_l0"]), onnx_gates(trained["lstm.bias_hh_l0"])]
    parameters = {
        # [4 * hidden, ...] -> [1, 4 * hidden, ...], one direction
        "lstm.W": onnx_gates(trained["lstm.weight_ih_l0"])[None],
        "lstm.R": onnx_gates(trained["lstm.weight_hh_l0"])[None],
        "lstm.B": np.concatenate(biases)[None],
        "fc.weight": trained["fc.weight"],
        "fc.bias": trained["fc.bias"],
    }
    nodes = [
        constant("direction_axis", [0], np.int64),
        # [N, 32, 1] -> [32, N, 1], time first
        node("Transpose", ["series"], "time_first", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["time_first", "lstm.W", "lstm.R", "lstm.B"], ["", "last_hidden"], name="lstm", hidden_size=HIDDEN),
        # [1, N, 16] -> [N, 16]
        node("Squeeze", ["last_hidden", "direction_axis"], "hidden"),
        node("Gemm", ["hidden", "fc.weight", "fc.bias"], "next", name="fc", transB=1),
    ]
    write(
        folder / "pendulum_lstm.onnx",
        nodes,
        tensor("series", ["N", PAST, 1]),
        tensor("next", ["N", 1]),
        parameters,
        {"unit": "radian", "test_rmse": f"{error:.4f}"},
        model,
        held_out,
    )
    np.save(folder / "series.npy", held_out[:4])
    return (
        f"pendulum_lstm: test RMSE {error:.4f} rad on {HELD_OUT} held-out series (noise {NOISE}; "
        f"the last value again: {repeat:.4f}; the last two drawn on: {extend:.4f})"
    )
