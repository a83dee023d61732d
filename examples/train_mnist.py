"""The experiment of `fogzo train mnist` as a plain loop: the same numbers, nothing hidden.

python examples/train_mnist.py [steps] [seed]
"""

import math
import sys

import torch
import torch.nn.functional as F

import fogzo
from fogzo.recipes.mnist import load_mnist


def train(make_estimator, lr, steps, seed, batch_size=512):
    images, labels, test_images, test_labels = load_mnist()
    torch.manual_seed(seed)
    linears = torch.nn.Linear(784, 10, bias=False), torch.nn.Linear(10, 10, bias=False)
    model = torch.nn.Sequential(linears[0], torch.nn.ReLU(), linears[1])
    config = fogzo.QuantConfig(grid="mid-rise", bits=2, scale="fixed", surrogate="identity")
    fogzo.quantize_(model, config)
    estimator = make_estimator(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    losses = []
    for step in range(steps):
        epoch, position = divmod(step, len(labels) // batch_size)
        if position == 0:
            shuffle = torch.Generator().manual_seed((seed << 16) + epoch)
            order = torch.randperm(len(labels), generator=shuffle)
        batch = order[position * batch_size : (position + 1) * batch_size]
        x, y = images[batch], labels[batch]
        optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = estimator.backward(lambda x=x, y=y: F.cross_entropy(model(x), y))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    with torch.no_grad():
        train_loss = F.cross_entropy(model(images), labels).item()
        accuracy = (model(test_images).argmax(1) == test_labels).float().mean().item()
    return losses, train_loss, accuracy


if __name__ == "__main__":
    steps, seed = [int(word) for word in sys.argv[1:]] + [300, 0][len(sys.argv) - 1 :]
    _, loss, accuracy = train(lambda model: fogzo.FOGZO(model, seed=seed), 2e-2, steps, seed)
    print(f"FOGZO, {steps} steps: training loss {loss:.4f}, test accuracy {accuracy:.2%}")
