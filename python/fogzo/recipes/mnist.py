"""The shallow experiment: a 784-10-10 network with 2-bit weights on MNIST."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo

from ._idx import IdxFile, read_idx
from ._recipe import Batch, Recipe, Task

DATA = Path(__file__).parent / "data" / "mnist"
SOURCE = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MEAN, DEVIATION = 0.1307, 0.3081

TRAIN_IMAGES = IdxFile(
    "train-images-idx3-ubyte.gz",
    (60000, 28, 28),
    "6bbc9ace898e44ae57da46a324031adb",
    SOURCE,
)
TRAIN_LABELS = IdxFile(
    "train-labels-idx1-ubyte.gz", (60000,), "a25bea736e30d166cdddb491f175f624", SOURCE
)
TEST_IMAGES = IdxFile(
    "t10k-images-idx3-ubyte.gz",
    (10000, 28, 28),
    "2646ac647ad5339dbf082846283269ea",
    SOURCE,
)
TEST_LABELS = IdxFile(
    "t10k-labels-idx1-ubyte.gz", (10000,), "27ae3e4e09519cfbb04c329615203637", SOURCE
)


def _pixels(images: Tensor, device: torch.device) -> Tensor:
    """uint8 [n, 28, 28] -> float32 [n, 784] with the training set's mean 0 and deviation 1."""
    flat = images.flatten(1).to(device, torch.float32)
    return flat.div_(255).sub_(MEAN).div_(DEVIATION)


def load_mnist(
    folder: Path | None = None, device: torch.device | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Load MNIST from the package, or from a folder with the same four files.

    Args:
        folder: where the .gz files lie; None for the packaged ones.
        device: where the tensors go; None for the CPU.

    Returns:
        Training images, training labels, test images, test labels: images float32 [n, 784],
        normalised; labels int64 [n], 0..9.

    Raises:
        DataError: a file is missing or is not the canonical one.

    Example:
        >>> images, labels, test_images, test_labels = load_mnist()
        >>> images.shape
        torch.Size([60000, 784])
    """
    folder = DATA if folder is None else folder
    device = torch.device("cpu") if device is None else device
    return (
        _pixels(read_idx(TRAIN_IMAGES, folder), device),
        read_idx(TRAIN_LABELS, folder).to(device, torch.int64),
        _pixels(read_idx(TEST_IMAGES, folder), device),
        read_idx(TEST_LABELS, folder).to(device, torch.int64),
    )


def mnist_model(seed: int, surrogate: str = "identity") -> nn.Module:
    """Build the 784-10-10 network without biases, its weights quantized to 2 bits, mid-rise.

    Args:
        seed: of torch's global generator, which draws the initial weights.
        surrogate: identity (the published one) or clipped.

    Returns:
        Sequential(QuantLinear, ReLU, QuantLinear), float32: x [batch, 784] -> logits [batch, 10].

    Raises:
        TypeError, RuntimeError: a seed that torch.manual_seed refuses.

    Example:
        >>> mnist_model(seed=0)(torch.zeros(2, 784)).shape
        torch.Size([2, 10])

    Source: the shallow experiment of Yang & Aamodt, arXiv 2510.23926.
    """
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(784, 10, bias=False), nn.ReLU(), nn.Linear(10, 10, bias=False))
    config = fogzo.QuantConfig(
        grid="mid-rise", bits=2, scale="fixed", granularity="channel", surrogate=surrogate
    )
    return fogzo.quantize_(model, config)


def mnist_task(folder: Path | None, device: torch.device) -> Task:
    """What a run needs of MNIST: batches by index, the mean loss of one, the final evaluation.

    loss = mean over the batch of -log softmax(logits)[label], in nats.

    Args:
        folder: where the .gz files lie; None for the packaged ones.
        device: where images (float32 [n, 784]) and labels (int64 [n]) are kept.

    Returns:
        A Task of 60,000 training examples; evaluate(model) gives the mean loss over all of them and
        the share of the 10,000 test images that are classified right, 0..1.

    Raises:
        DataError: a file is missing or is not the canonical one.

    Example:
        >>> task = mnist_task(None, torch.device("cpu"))
        >>> task.loss(mnist_model(seed=0), task.batch(torch.arange(512))).shape
        torch.Size([])

    Source: LeCun, Bottou, Bengio & Haffner, Proc. IEEE 86(11), 1998 (the data).
    """
    images, labels, test_images, test_labels = load_mnist(folder, device)

    def batch(indices: Tensor) -> Batch:
        indices = indices.to(device)
        return images[indices], labels[indices]

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        inputs, targets = batch
        return F.cross_entropy(model(inputs), targets)

    @torch.no_grad()
    def evaluate(model: nn.Module) -> tuple[float, float]:
        train_loss = F.cross_entropy(model(images), labels)
        hits = (model(test_images).argmax(1) == test_labels).sum()
        return train_loss.item(), hits.item() / len(test_labels)

    return Task(len(labels), batch, loss, evaluate)


RECIPE = Recipe(
    name="mnist",
    about="784-10-10 network, 2-bit mid-rise weights, on MNIST (about 8,000 weights)",
    estimators="ste,fogzo,n-spsa",
    steps=4000,
    seeds=3,
    batch_size=512,
    threads=1,
    learning_rates={"ste": 5e-4, "fogzo": 2e-2, "n-spsa": 5e-3},
    task=mnist_task,
    model=mnist_model,
)
