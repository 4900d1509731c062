"""Groups of like points, and whether there are any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.linalg import eigh
from scipy.spatial.distance import pdist, squareform

Points = NDArray[np.float32]
Labels = NDArray[np.int64]

# Groups that are looked for.
MOST_GROUPS = 6
# A group holds at least so many points, and at least this share of them.
LEAST_POINTS = 10
LEAST_SHARE = 0.05
# More points are not compared with each other; the rest joins the nearest group.
MOST_POINTS = 2000
# Directions that are looked at.
COMPONENTS = 10
# Branches of the tree that are looked at: small ones join a larger group.
_BRANCHES = 12
# Without groups: points of one Gaussian with the same spread, drawn so often and so many. Groups
# must be clearer than in all of the draws, which one cloud achieves once in 20 times.
_DRAWS = 19
_DRAWN = 200


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Points by group.

    Attributes:
        of: The group of each point, n, from 0 on.
        place: The points in the reduced space that groups were looked for in, n×components.
        silhouette: How clearly the groups are apart, in [−1, 1]; NaN where there is one.
    """

    of: Labels
    place: Points
    silhouette: float

    @property
    def count(self) -> int:
        """How many groups."""
        return int(self.of.max(initial=0)) + 1


def find_groups(points: Points, rng: np.random.Generator) -> Groups:
    """Find two to six groups of like points, or say that there is one.

    Ward's tree over the principal components is cut where the mean silhouette is highest. Points
    of one Gaussian with the same spread have some silhouette too, the more the longer their cloud;
    only groups clearer than those of such points count.

    Args:
        points: n×C.
        rng: Draws those points.

    Returns:
        The groups.

    Source:
        Ward 1963; Rousseeuw 1987, "Silhouettes"; the comparison with one Gaussian after Liu et
        al. 2008, "Statistical significance of clustering".

    Example:
        >>> near = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
        >>> groups = find_groups(np.concatenate([near, near + 9]), np.random.default_rng(1))
        >>> groups.count, groups.of[[0, 39, 40, 79]].tolist()
        (2, [0, 0, 1, 1])
    """
    count = len(points)
    if not count:
        return Groups(of=np.zeros(0, np.int64), place=points, silhouette=float("nan"))
    place = principal(points)
    alone = Groups(of=np.zeros(count, np.int64), place=place, silhouette=float("nan"))
    some = place[np.linspace(0, count - 1, min(count, MOST_POINTS)).astype(np.int64)]
    least = max(LEAST_POINTS, int(np.ceil(LEAST_SHARE * len(some))))
    if len(some) < 2 * least or not np.ptp(some, axis=0).any():
        return alone
    of, clear = _best_cut(some, least)
    if of is None or _happens_by_chance(some, least, clear, rng):
        return alone
    nearest = nearest_centre(place, centres(some, of))
    return Groups(of=_by_first(of if len(some) == count else nearest), place=place,
                  silhouette=clear)  # fmt: skip


def principal(points: Points, components: int = COMPONENTS) -> Points:
    """Points along their directions of largest spread, centred, n×(at most ``components``).

    Example:
        >>> principal(np.array([[0.0, 0.0], [3.0, 4.0]], np.float32), 1).round(2).tolist()
        [[2.5], [-2.5]]
    """
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    # The smaller of the two products tells the directions.
    wide = centred.shape[1] > centred.shape[0]
    product = centred @ centred.T if wide else centred.T @ centred
    size = len(product)
    values, vectors = eigh(product, subset_by_index=(max(0, size - components), size - 1))
    values, vectors = values[::-1].clip(0), vectors[:, ::-1]
    place = vectors * np.sqrt(values) if wide else centred @ vectors
    # A direction and its opposite are the same; the sign is fixed, for equal results everywhere.
    largest = np.take_along_axis(place, abs(place).argmax(axis=0)[None], axis=0)
    return np.asarray(place * np.where(largest < 0, -1, 1), np.float32)


def silhouette(distances: NDArray[np.floating], of: Labels) -> float:
    """Mean silhouette of groups.

    Args:
        distances: Between all points, n×n.
        of: Group of each point, n; at least two groups.

    Returns:
        In [−1, 1]; a point that is alone in its group counts 0.

    Source:
        Rousseeuw 1987, section 2.

    Example:
        >>> line = np.array([0.0, 1.0, 9.0])
        >>> round(silhouette(abs(line[:, None] - line), np.array([0, 0, 1])), 4)
        0.588
    """
    member = np.eye(of.max() + 1, dtype=distances.dtype)[of]
    sizes = member.sum(axis=0)
    sums = distances @ member
    own = (member * sums).sum(axis=1) / np.maximum(sizes[of] - 1, 1)
    other = np.where(member > 0, np.inf, sums / sizes).min(axis=1)
    larger = np.maximum(own, other)
    values = np.divide(other - own, larger, out=np.zeros_like(own), where=larger > 0)
    return float(np.where(sizes[of] > 1, values, 0).mean())


def centres(points: Points, of: Labels) -> Points:
    """The mean of each group, groups×components."""
    return np.stack([points[of == group].mean(axis=0) for group in range(of.max() + 1)])


def nearest_centre(points: Points, middle: Points) -> Labels:
    """The nearest centre of each point, n."""
    squares = ((points[:, None] - middle[None]) ** 2).sum(axis=2)
    return np.asarray(squares.argmin(axis=1), np.int64)


def _best_cut(points: Points, least: int) -> tuple[Labels | None, float]:
    """The groups with the highest silhouette, of at least so many points each."""
    condensed = pdist(points)
    tree = linkage(condensed, "ward")
    distances = squareform(condensed).astype(np.float32)
    best: Labels | None = None
    clear = -np.inf
    tried: set[int] = set()
    for branches in range(2, _BRANCHES + 1):
        of = _without_small(points, fcluster(tree, branches, "maxclust") - 1, least)
        groups = int(of.max()) + 1
        if groups in tried or not 2 <= groups <= MOST_GROUPS:
            continue
        tried.add(groups)
        found = silhouette(distances, of)
        if found > clear and np.bincount(of).min() >= least:
            best, clear = of, found
    return best, clear


def _without_small(points: Points, of: Labels, least: int) -> Labels:
    """Points of groups that are too small join the nearest larger one."""
    large = np.flatnonzero(np.bincount(of) >= least)
    if not len(large):
        return np.zeros(len(of), np.int64)
    middle = np.stack([points[of == group].mean(axis=0) for group in large])
    stays = np.isin(of, large)
    joined = np.searchsorted(large, of)
    joined[~stays] = nearest_centre(points[~stays], middle)
    return np.asarray(joined, np.int64)


def _happens_by_chance(points: Points, least: int, clear: float, rng: np.random.Generator) -> bool:
    """Whether points of one Gaussian with the same spread have groups that are as clear."""
    count = min(len(points), _DRAWN)
    fewest = max(2, round(least * count / len(points)))
    spread = points.std(axis=0)
    for _ in range(_DRAWS):
        drawn = rng.standard_normal((count, len(spread)), np.float32) * spread
        if _best_cut(drawn, fewest)[1] >= clear:
            return True
    return False


def _by_first(of: Labels) -> Labels:
    """Groups numbered in the order of their first points."""
    _, first, joined = np.unique(of, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[joined], np.int64)
