"""The order of samples that train/data.c makes of a seed."""

MASK = (1 << 64) - 1


class Rng:
    """splitmix64"""

    def __init__(self, state):
        self.state = state & MASK

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        return (z ^ z >> 31) % n


def windows(count, tokens, length, seed):
    """The first tokens of `count` windows of the first epoch."""
    n = (tokens - 1) // length
    assert count <= n
    order, r = list(range(n)), Rng(seed)
    for i in range(n - 1, 0, -1):
        k = r.below(i + 1)
        order[i], order[k] = order[k], order[i]
    spare = tokens - 1 - n * length
    return [i * length + (seed % (spare + 1) if spare else 0) for i in order[:count]]
