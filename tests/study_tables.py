"""Tables of a study whose sums are known in closed form."""

import numpy as np
import pandas as pd

from interp_unlearn.organism.sets import GOALS

N_PROMPTS = 40
GROUPS = [f"group-{row // 2}" for row in range(N_PROMPTS)]
Shares = dict[tuple[str, str], tuple[float, float]]  # clean and target shares by objective and goal


def planted(toxicity: tuple[float, float], knowledge: tuple[float, float], layers: str = "single multi") -> Shares:
    """Shares of a factorial: clean shares under the probe and the random targets of either goal, baselines apart."""
    clean = {"toxicity": toxicity, "knowledge": knowledge}
    shares: Shares = {}
    for goal in GOALS:
        shares |= {("none", goal): (0.1, 0.9), ("twin", goal): (0.9, 0.1)}
        for kind, share in zip(("probe", "random"), clean[goal], strict=True):
            shares |= {(f"{kind}_{layer}", goal): (share, (1 - share) / 2) for layer in layers.split()}
    return shares


def judged(clean: float, target: float) -> pd.DataFrame:
    """A cell's generations with exact shares; which prompts get which verdict is scattered but fixed."""
    ranks = (np.arange(N_PROMPTS) * 7) % N_PROMPTS / N_PROMPTS
    verdicts = np.where(ranks < clean - 1e-9, "clean", np.where(ranks < clean + target - 1e-9, "target", "broken"))
    return pd.DataFrame({"verdict": verdicts, "group": GROUPS, "row": range(N_PROMPTS)})


def generations_of(shares: Shares, seeds: tuple[int, ...] = (0, 1)) -> pd.DataFrame:
    frames = [
        judged(*of_cell).assign(objective=objective, goal=goal, seed=seed)
        for (objective, goal), of_cell in shares.items()
        for seed in seeds
    ]
    return pd.concat(frames, ignore_index=True)


def measures_of(shares: Shares, seeds: tuple[int, ...] = (0, 1)) -> pd.DataFrame:
    rows = [
        {"objective": objective, "goal": goal, "measure": measure, "seed": seed, "value": value}
        for (objective, goal), (clean, target) in shares.items()
        for seed in seeds
        for measure, value in (("clean", clean), ("target", target), ("retain_kl", 0.25))
    ]
    return pd.DataFrame(rows)
