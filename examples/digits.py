"""Train one small classifier on handwritten digits twice, with torch's cross entropy and with ours."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from stopwatch import time_losses
from torch import Tensor, nn

import ce_ext.functional

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "torch": F.cross_entropy,
    "ce_ext": ce_ext.functional.cross_entropy,
}


@dataclass
class Digits:
    """Standardised 8x8 images, and the digits that they show."""

    train_images: Tensor
    train_digits: Tensor
    test_images: Tensor
    test_digits: Tensor

    @classmethod
    def load(cls, seed: int) -> Digits:
        images, digits = load_digits(return_X_y=True)
        split = train_test_split(images, digits, test_size=0.25, random_state=seed, stratify=digits)
        train_images, test_images = (torch.from_numpy(x).float().view(-1, 1, 8, 8) for x in split[:2])
        train_digits, test_digits = (torch.from_numpy(y) for y in split[2:])
        std, mean = torch.std_mean(train_images)
        return cls((train_images - mean) / std, train_digits, (test_images - mean) / std, test_digits)


@dataclass
class Run:
    """What a training leaves behind."""

    losses: list[float]  # of each step
    train_loss: float  # of all training images, in the end
    accuracy: float  # on the test images


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(32 * 4 * 4, 10),
    )


def train(loss_of: Loss, data: Digits, args: argparse.Namespace, advance: Callable[[], None]) -> Run:
    """Everything random follows from the seed, so that two runs differ by their loss alone."""
    torch.manual_seed(args.seed)
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    images = len(data.train_digits)
    whole_batches = images - images % args.batch_size
    losses = []
    for _ in range(args.epochs):
        for batch in torch.randperm(images)[:whole_batches].split(args.batch_size):
            loss = loss_of(model(data.train_images[batch]), data.train_digits[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        advance()
    model.eval()
    with torch.no_grad():
        train_loss = loss_of(model(data.train_images), data.train_digits)
        hits = model(data.test_images).argmax(1) == data.test_digits
    return Run(losses, train_loss.item(), hits.float().mean().item())


def time_alone(batch_size: int) -> dict[str, list[float]]:
    """Seconds of each loss and its gradient, for a batch."""
    logits, digits = torch.randn(batch_size, 10, requires_grad=True), torch.randint(10, (batch_size,))
    return time_losses({name: partial(loss_of, logits, digits) for name, loss_of in LOSSES.items()}, logits)


def make_table(runs: dict[str, Run], differences: np.ndarray, seconds: dict[str, list[float]]) -> Table:
    table = Table(title="Handwritten digits, one seed, two cross entropies")
    table.add_column("")
    for name in runs:
        table.add_column(name, justify="right")
    table.add_row("final train loss", *(f"{run.train_loss:.6f}" for run in runs.values()))
    table.add_row("test accuracy", *(f"{run.accuracy:.2%}" for run in runs.values()))
    table.add_row("largest difference of losses", "", f"{differences.max():.1e}")
    for name, statistic in (("best", min), ("median", statistics.median)):
        times = (f"{statistic(seconds[loss]) * 1e6:.1f} µs" for loss in runs)
        table.add_row(f"loss and gradient of a batch, {name}", *times)
    return table


def plot(runs: dict[str, Run], differences: np.ndarray, path: Path) -> None:
    figure = Figure(figsize=(8, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    styles = ({"color": "#c8c8c8", "linewidth": 4}, {"color": "#d1495b", "linewidth": 1})
    for (name, run), style in zip(runs.items(), styles, strict=True):
        top.semilogy(run.losses, label=name, **style)
    top.set(title="Training on handwritten digits", ylabel="cross entropy of the batch")
    top.legend(frameon=False)
    bottom.plot(differences, color="#30638e", linewidth=1)
    bottom.set(xlabel="step", ylabel="|torch - ce_ext|")
    bottom.ticklabel_format(axis="y", style="scientific", scilimits=(0, 0))
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
        axes.margins(x=0)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("digits.png"))
    args = parser.parse_args()
    torch.set_num_threads(1)  # the net is too small for more to help

    console = Console()
    data = Digits.load(args.seed)
    runs: dict[str, Run] = {}
    with Progress(console=console) as progress:
        for name, loss_of in LOSSES.items():
            task = progress.add_task(f"training with {name}", total=args.epochs)
            runs[name] = train(loss_of, data, args, partial(progress.advance, task))

    differences = np.abs(np.subtract(runs["torch"].losses, runs["ce_ext"].losses))
    console.print(make_table(runs, differences, time_alone(args.batch_size)))
    plot(runs, differences, args.output)
    console.print(f"The loss curves are in {args.output}")


if __name__ == "__main__":
    main()
