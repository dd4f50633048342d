"""Architectures as people train them, in a few dozen lines of `torch.nn` each, scaled by `width` so that tests stay quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] | None = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.a, self.b = conv(inputs, outputs, stride=stride), conv(outputs, outputs, act=None)
        self.skip = conv(inputs, outputs, 1, stride, act=None) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.b(self.a(x)) + self.skip(x))


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = outputs // 4
        self.body = nn.Sequential(conv(inputs, inner, 1), conv(inner, inner, 3, stride), conv(inner, outputs, 1, act=None))
        self.skip = conv(inputs, outputs, 1, stride, act=None) if stride > 1 or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.skip(x))


class ResNet(nn.Module):
    def __init__(self, block: type[Basic] | type[Bottleneck], depths: tuple[int, ...], width: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, width, 7, 2), nn.MaxPool2d(3, 2, 1))
        expand = 4 if block is Bottleneck else 1
        stages: list[nn.Module] = []
        inputs = width
        for stage, depth in enumerate(depths):
            outputs = width * 2**stage * expand
            for k in range(depth):
                stages.append(block(inputs, outputs, 2 if stage and not k else 1))
                inputs = outputs
        self.stages, self.fc = nn.Sequential(*stages), nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.adaptive_avg_pool2d(self.stages(self.stem(x)), 1).flatten(1))


class Inverted(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = inputs * expand
        first = [conv(inputs, inner, 1, act=nn.ReLU6)] if expand > 1 else []
        self.body = nn.Sequential(*first, conv(inner, inner, 3, stride, inner, nn.ReLU6), conv(inner, outputs, 1, act=None))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def mobilenet(width: float, classes: int) -> nn.Module:
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    inputs = max(8, int(32 * width))
    layers: list[nn.Module] = [conv(3, inputs, 3, 2, act=nn.ReLU6)]
    for expand, channels, count, stride in plan if width >= 1 else plan[:4]:
        outputs = max(8, int(channels * width))
        for k in range(count if width >= 1 else min(count, 2)):
            layers.append(Inverted(inputs, outputs, stride if k == 0 else 1, expand))
            inputs = outputs
    last = int(1280 * max(width, 0.05))
    return nn.Sequential(*layers, conv(inputs, last, 1, act=nn.ReLU6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes))


class Fire(nn.Module):
    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze, self.one, self.three = nn.Conv2d(inputs, squeeze, 1), nn.Conv2d(squeeze, expand, 1), nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


def squeezenet(width: int, classes: int) -> nn.Module:
    w = width
    pool = lambda: nn.MaxPool2d(3, 2, ceil_mode=True)  # noqa: E731
    return nn.Sequential(
        nn.Conv2d(3, 6 * w, 3, 2), nn.ReLU(), pool(), Fire(6 * w, w, 4 * w), Fire(8 * w, w, 4 * w), pool(), Fire(8 * w, 2 * w, 8 * w), Fire(16 * w, 2 * w, 8 * w),
        pool(), Fire(16 * w, 3 * w, 12 * w), Fire(24 * w, 3 * w, 12 * w), Fire(24 * w, 4 * w, 16 * w), Fire(32 * w, 4 * w, 16 * w), nn.Dropout(),
        nn.Conv2d(32 * w, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip


def vgg(width: int, size: int, hidden: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 3
    for count, factor in ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8)):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width * factor, 3, padding=1), nn.ReLU()]
            inputs = width * factor
        layers.append(nn.MaxPool2d(2))
    flat = inputs * (size // 32) ** 2
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )


class Dense(nn.Module):
    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, 4 * growth, 1, bias=False), nn.BatchNorm2d(4 * growth), nn.ReLU(),
                                  nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet(growth: int, depths: tuple[int, ...], classes: int) -> nn.Module:
    channels = 2 * growth
    layers: list[nn.Module] = [conv(3, channels, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            layers.append(Dense(channels, growth))
            channels += growth
        if stage + 1 < len(depths):
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class UNet(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.down = nn.ModuleList([self.pair(1, w), self.pair(w, 2 * w), self.pair(2 * w, 4 * w)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(4 * w, 2 * w, 2, 2), nn.ConvTranspose2d(2 * w, w, 4, 2, 1)])
        self.merge = nn.ModuleList([self.pair(4 * w, 2 * w), self.pair(2 * w, w)])
        self.head = nn.Conv2d(w, 2, 1)

    @staticmethod
    def pair(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(conv(inputs, outputs), conv(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        a = self.down[0](x)
        b = self.down[1](F.max_pool2d(a, 2))
        c = self.down[2](F.max_pool2d(b, 2))
        d = self.merge[0](torch.cat([self.up[0](c), b], 1))
        return self.head(self.merge[1](torch.cat([self.up[1](d), a], 1)))


class Excited(nn.Module):
    """EfficientNet's block: an inverted residual whose channels are weighed by what all places say."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int, kernel: int) -> None:
        super().__init__()
        inner, squeezed = inputs * expand, max(1, inputs // 4)
        self.expand = conv(inputs, inner, 1, act=nn.SiLU) if expand > 1 else nn.Identity()
        self.depth = conv(inner, inner, kernel, stride, inner, nn.SiLU)
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inner, squeezed, 1), nn.SiLU(), nn.Conv2d(squeezed, inner, 1), nn.Sigmoid())
        self.project = conv(inner, outputs, 1, act=None)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.depth(self.expand(x))
        y = self.project(y * self.weigh(y))
        return x + y if self.residual else y


def efficientnet(width: float, classes: int) -> nn.Module:
    plan = [(1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)]
    inputs = max(8, int(32 * width))
    layers: list[nn.Module] = [conv(3, inputs, 3, 2, act=nn.SiLU)]
    for expand, channels, count, stride, kernel in plan if width >= 1 else plan[:3]:
        outputs = max(8, int(channels * width))
        for k in range(count if width >= 1 else 1):
            layers.append(Excited(inputs, outputs, stride if k == 0 else 1, expand, kernel))
            inputs = outputs
    last = int(1280 * max(width, 0.05))
    return nn.Sequential(*layers, conv(inputs, last, 1, act=nn.SiLU), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(last, classes))


class Tagger(nn.Module):
    """A label for each token, by an LSTM that reads both ways."""

    def __init__(self, vocabulary: int, width: int, hidden: int, layers: int, labels: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.read = nn.LSTM(width, hidden, layers, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, labels)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.read(self.tokens(tokens))[0])


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / (c // self.heads) ** 0.5
        if self.causal:
            scores = scores.masked_fill(torch.ones(t, t, dtype=torch.bool, device=x.device).triu(1), float("-inf"))
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, c))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool, first: bool) -> None:
        super().__init__()
        self.first, self.attend = first, Attention(width, heads, causal)
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate="tanh" if causal else "none"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        if self.first:
            x = x + self.attend(self.n1(x))
            return x + self.mlp(self.n2(x))
        x = self.n1(x + self.attend(x))
        return self.n2(x + self.mlp(x))


class Language(nn.Module):
    """BERT-like (normalised after) or GPT-like (causal, normalised first)."""

    def __init__(self, vocabulary: int, length: int, width: int, heads: int, depth: int, causal: bool) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*[Block(width, heads, causal, causal) for _ in range(depth)])
        self.head = nn.Linear(width, vocabulary if causal else 4)
        self.causal = causal
        self.register_buffer("order", torch.arange(length)[None], persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(self.order)
        if self.causal:
            return self.head(self.norm(self.blocks(x)))
        return self.head(torch.tanh(self.blocks(self.norm(x))[:, 0]))


class ViT(nn.Module):
    def __init__(self, size: int, patch: int, width: int, heads: int, depth: int, classes: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.places = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, heads, False, True) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


def mlp(width: int, inputs: int = 64, outputs: int = 10) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, outputs))


@dataclass(frozen=True)
class Architecture:
    """A small model for tests, the size that people use for benchmarks, and an input for either."""

    name: str
    small: Callable[[], nn.Module]
    small_shape: tuple[int, ...]
    full: Callable[[], nn.Module]
    full_shape: tuple[int, ...]
    vocabulary: int = 0  # of a model on tokens

    def example(self, batch: int, full: bool = False) -> Tensor:
        shape = (batch, *(self.full_shape if full else self.small_shape))
        if self.vocabulary:
            return torch.randint(0, self.vocabulary, shape)
        return torch.randn(shape)


ARCHITECTURES = [
    Architecture("mlp", lambda: mlp(32), (64,), lambda: mlp(512), (64,)),
    Architecture("resnet18", lambda: ResNet(Basic, (1, 1), 8, 10), (3, 32, 32), lambda: ResNet(Basic, (2, 2, 2, 2), 64, 1000), (3, 224, 224)),
    Architecture("resnet50", lambda: ResNet(Bottleneck, (1, 1), 8, 10), (3, 32, 32), lambda: ResNet(Bottleneck, (3, 4, 6, 3), 64, 1000), (3, 224, 224)),
    Architecture("mobilenetv2", lambda: mobilenet(0.25, 10), (3, 32, 32), lambda: mobilenet(1.0, 1000), (3, 224, 224)),
    Architecture("squeezenet", lambda: squeezenet(4, 10), (3, 65, 65), lambda: squeezenet(16, 1000), (3, 224, 224)),
    Architecture("vgg16", lambda: vgg(4, 32, 32, 10), (3, 32, 32), lambda: vgg(64, 224, 4096, 1000), (3, 224, 224)),
    Architecture("densenet121", lambda: densenet(8, (2, 2), 10), (3, 32, 32), lambda: densenet(32, (6, 12, 24, 16), 1000), (3, 224, 224)),
    Architecture("efficientnet_b0", lambda: efficientnet(0.25, 10), (3, 32, 32), lambda: efficientnet(1.0, 1000), (3, 224, 224)),
    Architecture("unet", lambda: UNet(4), (1, 32, 32), lambda: UNet(32), (1, 128, 128)),
    Architecture("lstm", lambda: Tagger(50, 16, 12, 1, 5), (9,), lambda: Tagger(20000, 128, 256, 2, 17), (64,), 50),
    Architecture("bert", lambda: Language(50, 12, 32, 4, 2, False), (12,), lambda: Language(30522, 128, 768, 12, 12, False), (128,), 50),
    Architecture("gpt", lambda: Language(50, 12, 32, 4, 2, True), (12,), lambda: Language(50257, 128, 768, 12, 12, True), (128,), 50),
    Architecture("vit", lambda: ViT(32, 8, 32, 4, 2, 10), (3, 32, 32), lambda: ViT(224, 16, 768, 12, 12, 1000), (3, 224, 224)),
]
