"""What each method has to make of the gradients of the losses, written down from its formula."""

import math

import torch
from three import RowsOfThree, model_of_three
from torch.nn.functional import cross_entropy

NAMES = ("a", "b", "c")
WEIGHT = 0.5  # of the heads' losses


def separate_gradients(model=None):
    """({loss: {parameter: gradient}}, {modality: score}) of all rows."""
    model = model_of_three() if model is None else model
    batch = RowsOfThree().values
    output, labels = model(**batch), batch["labels"]
    # A row that lacks a modality counts as 0 in its head's loss.
    having = {name: batch.get(f"{name}_present", torch.ones(len(labels))).float() for name in NAMES}
    losses = {"fused": cross_entropy(output.logits, labels)}
    scores = {}
    for name, logits in output.unimodal_logits.items():
        losses[name] = (cross_entropy(logits, labels, reduction="none") * having[name]).mean()
        true = logits.detach().softmax(dim=-1)[torch.arange(len(labels)), labels]
        scores[name] = float((true * having[name]).sum() / having[name].sum())
    named = dict(model.named_parameters())
    gradients = {}
    for loss, value in losses.items():
        found = torch.autograd.grad(value, named.values(), retain_graph=True, allow_unused=True)
        gradients[loss] = {
            name: torch.zeros_like(parameter) if gradient is None else gradient
            for (name, parameter), gradient in zip(named.items(), found, strict=True)
        }
    return gradients, scores


def others(scores, name):
    rest = [score for other, score in scores.items() if other != name]
    return sum(rest) / len(rest)


def encoder_of(parameter):
    """The modality whose encoder a parameter belongs to, or None."""
    return next((name for name in NAMES if f"encoders.{name}." in parameter), None)


def summed(gradients, weight=WEIGHT):
    return {p: g + weight * sum(gradients[name][p] for name in NAMES) for p, g in gradients["fused"].items()}


def detached(gradients, scores):
    fused = {p: torch.zeros_like(g) if encoder_of(p) else g for p, g in gradients["fused"].items()}
    return summed({**gradients, "fused": fused}, weight=2.0)


def mlb(gradients, scores):
    factor = {name: 1 + math.tanh(0.8 * (others(scores, name) / scores[name] - 1)) for name in NAMES}
    return {p: g * factor.get(encoder_of(p), 1.0) for p, g in summed(gradients).items()}


def modality_dropout(gradients, scores):
    """What is better than the others' mean is dropped in every row, with a probability of 1."""
    model = model_of_three()
    batch = RowsOfThree().values
    stronger = [name for name in NAMES if scores[name] > others(scores, name)]
    nowhere = {f"{name}_present": torch.zeros(len(batch["labels"])).bool() for name in stronger}
    loss = cross_entropy(model(**{**batch, **nowhere}).logits, batch["labels"])
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, named.values(), materialize_grads=True)
    return summed({**gradients, "fused": dict(zip(named, found, strict=True))})


def mmpareto(gradients, scores):
    output = summed(gradients)
    for name in NAMES:
        parameters = [p for p in output if encoder_of(p) == name]
        fused = torch.cat([gradients["fused"][p].flatten() for p in parameters]).double()
        own = torch.cat([WEIGHT * gradients[name][p].flatten() for p in parameters]).double()
        if fused @ own >= 0:
            joined = (fused + own) / 2
        else:  # the point of the segment that is nearest to 0, found by trying
            shares = torch.linspace(0, 1, 100_001, dtype=torch.float64)[:, None]
            best = min((shares * fused + (1 - shares) * own).split(1000), key=lambda part: part.norm(dim=1).min())
            joined = best[best.norm(dim=1).argmin()]
        joined = joined / joined.norm() * 1.5 * (fused + own).norm()
        for p, part in zip(parameters, joined.split([output[p].numel() for p in parameters]), strict=True):
            output[p] = part.view_as(output[p]).float()
    return output


EXPECTED = {"detached": detached, "mlb": mlb, "modality_dropout": modality_dropout, "mmpareto": mmpareto}
