"""The experiment of `fogzo train mnist` as a plain loop: the same numbers, nothing hidden."""

import math

import torch
import torch.nn.functional as F
from torch.nn import Linear, ReLU, Sequential

import fogzo
from fogzo.recipes.mnist import load_mnist


def train(make_estimator, lr, steps, seed=0, batch_size=512):
    images, labels, test_images, test_labels = load_mnist()
    torch.manual_seed(seed)
    model = Sequential(Linear(784, 10, bias=False), ReLU(), Linear(10, 10, bias=False))
    fogzo.quantize_(model, fogzo.QuantConfig(grid="mid-rise", bits=2, surrogate="identity"))
    estimator = make_estimator(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    losses = []
    for step in range(steps):
        epoch, place = divmod(step, len(labels) // batch_size)
        if place == 0:
            shuffle = torch.Generator().manual_seed((seed << 16) + epoch)
            batches = torch.randperm(len(labels), generator=shuffle).split(batch_size)
        x, y = images[batches[place]], labels[batches[place]]
        optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        losses.append(estimator.backward(lambda x=x, y=y: F.cross_entropy(model(x), y)).item())
        optimizer.step()
        optimizer.zero_grad()
    hits = model(test_images).argmax(1) == test_labels
    return losses, F.cross_entropy(model(images), labels).item(), hits.float().mean().item()


if __name__ == "__main__":
    _, loss, accuracy = train(fogzo.FOGZO, lr=2e-2, steps=300)
    print(f"FOGZO, 300 steps: training loss {loss:.4f}, test accuracy {accuracy:.2%}")
