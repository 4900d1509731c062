"""Attention of few queries to many tokens, without keys and values of every token."""

from __future__ import annotations

from torch import Tensor


def scores_of(
    queries: Tensor, tokens: Tensor, weight: Tensor, bias: Tensor | None, scale: float
) -> Tensor:
    """What queries and keys multiply to, where the keys are a linear map of tokens.

    ``q · (W x + b) = (q W) · x + q · b``: mapping few queries costs less than mapping all tokens.

    Args:
        queries: N×H×Q×D.
        tokens: N×T×C.
        weight: Of the map to keys, H·D×C.
        bias: H·D, or ``None``.
        scale: Is multiplied in.

    Returns:
        N×H×Q×T.

    Example:
        >>> import torch
        >>> q, x, W = torch.rand(2, 3, 1, 4), torch.rand(2, 5, 6), torch.rand(12, 6)
        >>> keys = (x @ W.T).view(2, 5, 3, 4).transpose(1, 2)
        >>> found = scores_of(q, x, W, None, 0.5)
        >>> torch.allclose(found, 0.5 * q @ keys.transpose(2, 3), atol=1e-5)
        True
    """
    queries = queries * scale
    heads, width = queries.shape[1], queries.shape[3]
    mapped = queries @ weight.unflatten(0, (heads, width))
    found = mapped.flatten(1, 2) @ tokens.transpose(1, 2)
    scores = found.unflatten(1, (heads, -1))
    if bias is None:
        return scores
    return scores + queries @ bias.unflatten(0, (heads, width, 1))


def mixture_of(weights: Tensor, tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Sums of values, where the values are a linear map of tokens.

    ``Σ a (W x + b) = W (Σ a x) + b Σ a``: few sums of tokens are mapped in place of all tokens.

    Args:
        weights: N×H×Q×T.
        tokens: N×T×C.
        weight: Of the map to values, H·D×C.
        bias: H·D, or ``None``.

    Returns:
        N×H×Q×D.

    Example:
        >>> import torch
        >>> a, x, W = torch.rand(2, 3, 1, 5), torch.rand(2, 5, 6), torch.rand(12, 6)
        >>> values = (x @ W.T).view(2, 5, 3, 4).transpose(1, 2)
        >>> torch.allclose(mixture_of(a, x, W, None), a @ values, atol=1e-5)
        True
    """
    heads = weights.shape[1]
    sums = (weights.flatten(1, 2) @ tokens).unflatten(1, (heads, -1))
    mixed = sums @ weight.unflatten(0, (heads, -1)).transpose(1, 2)
    if bias is None:
        return mixed
    return mixed + weights.sum(dim=3, keepdim=True) * bias.unflatten(0, (heads, 1, -1))
