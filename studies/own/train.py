"""A small language model of characters: the text of Python's own help, a window of letters, one hidden layer. Knows nothing of ablate."""

import argparse
import math
from pydoc_data.topics import topics

import numpy as np

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=4)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--context", type=int, default=4, help="letters that are seen")
parser.add_argument("--width", type=int, default=64, help="hidden units")
parser.add_argument("--decay", action="store_true", help="let the learning rate fall to zero")
args = parser.parse_args()

text = "".join(topics[name] for name in sorted(topics))[:20_000].lower()
letters = sorted(set(text))
codes = np.array([letters.index(letter) for letter in text])
windows = np.stack([codes[i : len(codes) - args.context + i] for i in range(args.context)], axis=1)
following = codes[args.context :]
parts = [slice(0, 14_000), slice(14_000, 16_500), slice(16_500, None)]  # training, validation, test

rng = np.random.default_rng(args.seed)
embedding = rng.normal(0, 0.1, (len(letters), 16))
hidden = rng.normal(0, 1 / math.sqrt(16 * args.context), (16 * args.context, args.width))
output = rng.normal(0, 1 / math.sqrt(args.width), (args.width, len(letters)))


def forward(rows):
    """Inputs, hidden values and probabilities."""
    inputs = embedding[rows].reshape(len(rows), -1)
    values = np.tanh(inputs @ hidden)
    scores = values @ output
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return inputs, values, exponents / exponents.sum(axis=1, keepdims=True)


def mean_loss(part):
    """The mean negative log-likelihood of a part of the text."""
    probabilities = forward(windows[part])[2]
    return -np.log(probabilities[np.arange(len(probabilities)), following[part]]).mean()


steps, step = args.epochs * 140, 0
for epoch in range(1, args.epochs + 1):
    for batch in np.array_split(rng.permutation(14_000), 140):
        lr = args.lr * (1 - step / steps) if args.decay else args.lr
        inputs, values, errors = forward(windows[batch])
        errors[np.arange(len(batch)), following[batch]] -= 1
        errors /= len(batch) / 10
        to_hidden = (errors @ output.T) * (1 - values**2)
        to_embedding = (to_hidden @ hidden.T).reshape(len(batch), args.context, -1)
        output -= lr * values.T @ errors
        hidden -= lr * inputs.T @ to_hidden
        np.add.at(embedding, windows[batch], -lr * to_embedding)
        step += 1
    print(f"epoch {epoch} lr={lr:.4f} val_loss={mean_loss(parts[1]):.4f}", flush=True)
print("final ppl", math.exp(mean_loss(parts[2])))
