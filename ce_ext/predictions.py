"""What formulas of derivatives are written in: predictions in forms that do not cancel, and a policy for infinities.

The words are those of csrc/losses. Autograd differentiates all of it further without a loss of accuracy: nothing has a
kink, and no derivative is a difference of what is nearly the same.
"""

import torch
from torch import Tensor

from ce_ext import shapes


def product(weight: Tensor, x: Tensor) -> Tensor:
    """Nothing times infinity is nothing. A finite number keeps its derivative in a weight of 0."""
    return weight * x.where((weight != 0) | x.isfinite(), 0)


def difference(a: Tensor, b: Tensor) -> Tensor:
    """An infinity does not differ from itself."""
    is_same = a.isinf() & (a == b)
    return a.where(~is_same, 0) - b.where(~is_same, 0)


class LogitPrediction:
    """A prediction p = 1 / (1 + e^-x) by its less likely class, whose probability is never the difference of others.

    |x| is x or -x, and so are functions of it: each is smooth around 0, where they meet.
    """

    def __init__(self, x: Tensor) -> None:
        self.is_pos = x > 0
        self.distance = x.where(self.is_pos, -x)
        self.odds = torch.exp(-self.distance)  # of the less likely class against the other one
        self.likely = (1 + self.odds).reciprocal()
        self.miss_of_likely = torch.log1p(self.odds)

    def select(self, if_pos: Tensor, if_not: Tensor) -> Tensor:
        return if_pos.where(self.is_pos, if_not)

    def probability(self) -> Tensor:
        """p"""
        return self.select(self.likely, self.odds * self.likely)

    def rest(self) -> Tensor:
        """1 - p"""
        return self.select(self.odds * self.likely, self.likely)

    def variance(self) -> Tensor:
        """p (1 - p)"""
        return self.likely * (self.odds * self.likely)

    def lead(self) -> Tensor:
        """2 p - 1 = tanh(x / 2)"""
        gap = torch.where(self.odds > 0.5, -torch.expm1(-self.distance), 1 - self.odds)
        return self.select(gap, -gap) * self.likely

    def loss(self, pos: Tensor, neg: Tensor) -> Tensor:
        """pos miss_pos + neg miss_neg, where the less likely class costs |x| more than the other one."""
        return (pos + neg) * self.miss_of_likely + product(self.select(neg, pos), self.distance)

    def slope(self, pos: Tensor, neg: Tensor) -> Tensor:
        """The derivative of `loss` in x."""
        return neg * self.probability() - pos * self.rest()

    def curvature(self, pos: Tensor, neg: Tensor) -> Tensor:
        """That of `slope`."""
        return (pos + neg) * self.variance()


def split_far(x: Tensor, may_split: Tensor) -> tuple[Tensor, Tensor]:
    """x as one nearer to 0, of which e^-|x| is a number to divide by, and how much |x| goes beyond that.

    Of what is proportional to e^-|x| that far from 0, quotients are those of the nearer x, to rounding.
    """
    bound = 700.0 if x.dtype == torch.float64 else 80.0
    is_far = (x.abs() > bound) & may_split
    return x.where(~is_far, bound * x.sign()), (x.abs() - bound).where(is_far, 0)


def power(base: Tensor, near: Tensor, beyond: Tensor, exponent: float) -> Tensor:
    """base^exponent of base = near e^-beyond, which may be too small for a number where its root is not."""
    if exponent == 0 or exponent >= 1:
        return base**exponent
    return near**exponent * torch.exp(-exponent * beyond)


class SoftmaxPrediction:
    """The softmax p of rows. Of its most likely class m, 1 - p_m is the sum of the others, or nothing would be left."""

    def __init__(self, is_most_likely: Tensor, nll: Tensor, dim: int) -> None:
        self._dim, self._is_most_likely = dim, is_most_likely
        self.nll = nll  # -log p
        self.p = torch.exp(-nll)

    @classmethod
    def of_log_probs(cls, log_probs: Tensor, dim: int) -> "SoftmaxPrediction":
        return cls(shapes.is_largest(log_probs, dim), -log_probs, dim)

    def total(self, x: Tensor) -> Tensor:
        return x.sum(self._dim, keepdim=True)

    def deviation(self, u: Tensor) -> Tensor:
        """u_j - <p, u>: what falls as -log p_j does along a change u of the logits. Measured from u_m."""
        above = u - self.of_most_likely(u)
        return above - self.total(self.p * above)

    def excess(self, q: Tensor) -> Tensor:
        """p_j sum_k q_k - q_j: the gradient of sum_k q_k (-log p_k) in the logits. q_m (p_m - 1) is taken by itself."""
        elsewhere = q.where(~self._is_most_likely, 0)
        rest = self.total(self.p.where(~self._is_most_likely, 0))
        at_most_likely = self.total(elsewhere) * self.p - q * rest
        return at_most_likely.where(self._is_most_likely, self.total(q) * self.p - q)

    def of_most_likely(self, x: Tensor) -> Tensor:
        return self.total(x.where(self._is_most_likely, 0))


class LogitsPrediction(SoftmaxPrediction):
    """That of logits z."""

    def __init__(self, z: Tensor, dim: int) -> None:
        is_max = shapes.is_largest(z, dim)
        self.max = z.where(is_max, 0).sum(dim, keepdim=True)
        gaps = (self.max - z).where(~is_max, 0)  # that of the maximum does not depend on it
        below = torch.exp(-gaps).where(~is_max, 0).sum(dim, keepdim=True)
        self.log_sum = torch.log1p(below) + (self.max - self.max)  # an infinite maximum makes the row NaN
        super().__init__(is_max, gaps + self.log_sum, dim)

    def log_sum_exp(self) -> Tensor:
        return self.max + self.log_sum


class FocalSurprise:
    """h(n) = (1 - p)^gamma n of n = -log p, and its derivatives h' and h'':

    h' = (1 - p)^gamma (1 + k n),   h'' = (1 - p)^gamma k (2 + k n - n / (1 - p)),   k = gamma p / (1 - p).
    """

    def __init__(self, row: SoftmaxPrediction, gamma: float) -> None:
        n, p = row.nll, row.p
        rest = torch.where(p > 0.5, -torch.expm1(-n), 1 - p)  # so that its derivative, p, does not cancel
        # At this bound a class is certain: all of it goes to 0 with n and with what n changes by.
        rest = rest.clamp(min=1024 * torch.finfo(n.dtype).smallest_normal)
        factor = (rest**gamma).where(n.isfinite(), 1)
        near_one = n / rest  # where n is small
        kn = gamma * product(p, near_one)
        self.value = factor * n
        self.slope = factor * (1 + kn)
        k = gamma * p / rest
        self.curve = factor * (k * (2 + kn) - product(k, near_one))
