"""The registry: every system by name. A new system is one file beside this one and one row here."""

from jaxomarl.algorithms import bc, brpo, iql, matd3, omsd
from jaxomarl.base import System

REGISTRY: dict[str, System] = {
    "omsd": omsd.OMSD,
    "brpo-ind": brpo.system(brpo.IND),
    "brpo-ctde": brpo.system(brpo.CTDE),
    "brpo-jal": brpo.system(brpo.JAL),
    "joint-score": brpo.system(brpo.JOINT_SCORE),
    "bc": bc.BC,
    "iql": iql.IQL,
    "matd3": matd3.MATD3,
}
