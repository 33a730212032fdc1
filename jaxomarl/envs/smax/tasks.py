"""The tasks `smax/<map>`."""

from jaxomarl.base import Task
from jaxomarl.envs.jaxmarl import jaxmarl_package
from jaxomarl.envs.smax import learned, scripts
from jaxomarl.envs.smax.environment import column_names, enemy_game, environment

FINAL = 256
"""Episodes of a final evaluation."""


def task(
    map_name: str, attack: str = "closest", horizon: int = 100, foes_shoot: bool = True
) -> Task:
    """The battle on a map of SMAX against JaxMARL's scripted foes.

    `attack` is whom a foe shoots at, and `foes_shoot` whether they do. Raises JaxomarlError for an
    unknown map, for other settings, and where JaxMARL is missing.
    """
    game = enemy_game(map_name, attack, horizon, foes_shoot)
    usual = f"smax-{jaxmarl_package().__version__}-{map_name}"
    dialect = usual
    changed = {
        "attack": (attack, "closest"),
        "horizon": (horizon, 100),
        "foes_shoot": (foes_shoot, True),
    }
    for name, (value, default) in changed.items():
        if value != default:
            dialect += f"-{name}={value}"
    env = environment(game, horizon, dialect)

    # learned teams know the rules that they were trained under
    learned_recipes = {} if dialect != usual else learned.recipes(env, map_name)
    allies = env.spec.agents
    foes = int(game.num_enemies)
    about = f"SMAX: {allies} allies against {foes} scripted foes; a win returns 2"
    return Task(
        f"smax/{map_name}",
        env,
        {**scripts.recipes(env, game), **learned_recipes},
        "scripted",
        optimum=2.0,
        about=about,
        fields=column_names(allies, foes),
        final_episodes=FINAL,
    )
