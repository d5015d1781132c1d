"""Train one small net to find rare eights among handwritten digits, with torch's binary losses and with ours."""

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
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve
from sklearn.model_selection import train_test_split
from stopwatch import time_losses
from torch import Tensor, nn

import ce_ext.nn

Loss = Callable[[Tensor, Tensor], Tensor]
TARGET_DTYPES = {"torch": torch.float32, "ce_ext": torch.bool}
RECALLS = np.linspace(0, 1, 101)


@dataclass
class Digits:
    """Standardised 8x8 images, and which of them show an eight. Training has but a given share of those."""

    train_images: Tensor
    train_eights: Tensor
    test_images: Tensor
    test_eights: Tensor

    @classmethod
    def load(cls, share: float, seed: int) -> Digits:
        images, digits = load_digits(return_X_y=True)
        split = train_test_split(images, digits == 8, test_size=0.5, random_state=seed, stratify=digits == 8)
        train_images, test_images = (torch.from_numpy(x).float().view(-1, 1, 8, 8) for x in split[:2])
        train_eights, test_eights = (torch.from_numpy(y) for y in split[2:])
        eights = round((~train_eights).sum().item() * share / (1 - share))
        kept = ~train_eights | (train_eights.cumsum(0) <= eights)  # random ones: the split is shuffled
        train_images, train_eights = train_images[kept], train_eights[kept]
        std, mean = torch.std_mean(train_images)
        return cls((train_images - mean) / std, train_eights, (test_images - mean) / std, test_eights)


@dataclass
class Run:
    """What a training leaves behind."""

    losses: list[float]  # of each step
    train_loss: float  # of all training images, in the end
    average_precision: float  # on the test images
    f1: float  # of those, at a probability of 0.5
    precisions: list[float]  # the best with at least each of RECALLS


Name = tuple[str, str]  # a loss and a library
Runs = dict[Name, list[Run]]  # by seed


def torch_focal_loss(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    p = torch.sigmoid(logits)
    p_t = p * targets + (1 - p) * (1 - targets)
    alpha_t = alpha * targets + (1 - alpha) * (1 - targets)
    return (alpha_t * (1 - p_t) ** gamma * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")).mean()


def make_losses(pos_weight: Tensor) -> dict[Name, Loss]:
    return {
        ("BCE", "torch"): nn.BCEWithLogitsLoss(),
        ("BCE", "ce_ext"): ce_ext.nn.BCEWithLogitsLoss(),
        ("weighted BCE", "torch"): nn.BCEWithLogitsLoss(pos_weight=pos_weight),
        ("weighted BCE", "ce_ext"): ce_ext.nn.BCEWithLogitsLoss(pos_weight=pos_weight),
        ("focal loss", "torch"): torch_focal_loss,
        ("focal loss", "ce_ext"): ce_ext.nn.SigmoidFocalLoss(reduction="mean"),
    }


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.GELU(),  # not ReLU, at whose kinks differences in rounding may grow
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(32 * 4 * 4, 1),
        nn.Flatten(0),
    )


def train(loss_of: Loss, targets: Tensor, data: Digits, seed: int, args: argparse.Namespace) -> Run:
    """Everything random follows from the seed, so that two runs differ by their loss alone."""
    torch.manual_seed(seed)
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    losses = []
    for _ in range(args.epochs):
        for batch in torch.randperm(len(targets)).split(args.batch_size):
            loss = loss_of(model(data.train_images[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        train_loss = loss_of(model(data.train_images), targets).item()
        eights, logits = data.test_eights.numpy(), model(data.test_images).numpy()
    precision, recall, _ = precision_recall_curve(eights, logits)
    best = [precision[recall >= least].max() for least in RECALLS]
    return Run(losses, train_loss, average_precision_score(eights, logits), f1_score(eights, logits > 0), best)


def time_alone(losses: dict[Name, Loss], batch_size: int) -> dict[Name, list[float]]:
    """Seconds of each loss and its gradient, for a batch."""
    logits, eights = torch.randn(batch_size, requires_grad=True), torch.rand(batch_size) < 0.1
    targets = {library: eights.to(dtype) for library, dtype in TARGET_DTYPES.items()}
    return time_losses({name: partial(loss_of, logits, targets[name[1]]) for name, loss_of in losses.items()}, logits)


def make_table(runs: Runs, seconds: dict[Name, list[float]], title: str) -> Table:
    table = Table(title=title, caption="Means ± standard deviations over seeds; µs of a batch's loss and gradient")
    for heading in ("loss", "of"):
        table.add_column(heading)
    for heading in ("train\nloss", "average\nprecision", "F1\nat 0.5", "best /\nmedian µs"):
        table.add_column(heading, justify="right")
    for (name, library), of_seeds in runs.items():
        scores = np.array([(run.average_precision, run.f1) for run in of_seeds])
        table.add_row(
            name if library == "torch" else "",
            library,
            f"{np.mean([run.train_loss for run in of_seeds]):.6f}",
            *(f"{score.mean():.3f} ± {score.std():.3f}" for score in scores.T),
            " / ".join(f"{of(seconds[name, library]) * 1e6:.0f}" for of in (min, statistics.median)),
            end_section=library == "ce_ext",
        )
    return table


def plot(runs: Runs, path: Path) -> None:
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    colors = {"BCE": "#30638e", "weighted BCE": "#edae49", "focal loss": "#d1495b"}
    for (name, library), of_seeds in runs.items():
        means = np.mean([run.precisions for run in of_seeds], axis=0)
        if library == "torch":
            axes.plot(RECALLS, means, color="#c8c8c8", linewidth=4, zorder=1)
        else:
            axes.plot(RECALLS, means, color=colors[name], linewidth=1, label=name)
    axes.set(title="Finding eights with ce_ext (wide and grey: with torch)")
    axes.set(xlabel="recall", ylabel="best precision with at least this recall, mean over seeds")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.margins(x=0)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.02, help="of eights among the training images")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--output", type=Path, default=Path("imbalanced.png"))
    args = parser.parse_args()
    torch.set_num_threads(1)  # the net is too small for more to help

    console = Console()
    runs: Runs = {}
    with Progress(console=console) as progress:
        for seed in progress.track(range(args.seeds), description="training, seed by seed"):
            data = Digits.load(args.share, seed)
            eights = data.train_eights
            losses_of = make_losses((~eights).sum() / eights.sum())
            for (name, library), loss_of in losses_of.items():
                run = train(loss_of, eights.to(TARGET_DTYPES[library]), data, seed, args)
                runs.setdefault((name, library), []).append(run)

    of_test = f"{data.test_eights.sum()} of {len(data.test_eights)} test images"
    title = f"Eights: {eights.sum()} of {len(eights)} training images, {of_test}"
    console.print(make_table(runs, time_alone(losses_of, args.batch_size), title))
    losses = np.array([[run.losses for run in of_seeds] for of_seeds in runs.values()])
    difference = np.abs(losses[::2] - losses[1::2]).max()  # each loss is there with torch, then with ce_ext
    console.print(f"No loss of a batch differs by more than {difference:.1e} between torch and ce_ext")
    plot(runs, args.output)
    console.print(f"The curves of precision and recall are in {args.output}")


if __name__ == "__main__":
    main()
