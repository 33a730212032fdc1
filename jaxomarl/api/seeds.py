"""Seeds by text: `--seeds 16` is 0..15, `--seeds 4:8` is 4..7, `--seeds 3,5` names them."""

from jaxomarl.base import refuse

MOST_SEED = 2**31 - 1
WAY = "Write 16 for seeds 0..15, 4:8 for 4..7, or 3,5 to name them."
MOST = 100_000


def parse_seeds(text: str) -> list[int]:
    """The seeds that a text means; JaxomarlError where it is empty, negative or malformed."""
    try:
        seeds = _listed(text)
    except ValueError:
        raise refuse("--seeds", "a count, a range or a list", text, WAY) from None

    if isinstance(seeds, range) and seeds.stop - seeds.start > MOST:
        raise refuse("--seeds", f"at most {MOST} seeds", text, WAY)
    seeds = list(seeds)
    if not seeds or min(seeds) < 0 or max(seeds) > MOST_SEED:
        raise refuse("--seeds", "at least one seed in 0 .. 2^31 - 1", text, WAY)
    if len(set(seeds)) < len(seeds):
        raise refuse("--seeds", "each seed once", text, WAY)
    return seeds


def _listed(text: str) -> range | list[int]:
    """A range of seeds, or the list of those named; ValueError where one is no number."""
    if ":" in text:
        low, high = (int(part) for part in text.split(":"))
        return range(low, high)
    if "," in text:
        return [int(part) for part in text.removesuffix(",").split(",")]
    return range(int(text))


def check_seed(seed: int) -> None:
    """Raise JaxomarlError where a single seed is out of range."""
    if not 0 <= seed <= MOST_SEED:
        raise refuse("--seed", "a seed in 0 .. 2^31 - 1", seed, "Name another.")
