"""The registry: every system by name. A new system is one file beside this one and one row here."""

from jaxomarl.algorithms import (
    bc,
    brpo,
    cfcql,
    cql,
    diffusion_ql,
    dom2,
    edp,
    iql,
    iql_ind,
    matd3,
    omar,
    omsd,
    sfbc,
    td3_bc,
)
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
    "dom2": dom2.DOM2,
    "td3-bc": td3_bc.TD3_BC,
    "cql": cql.CQL,
    "omar": omar.OMAR,
    "diffusion-ql": diffusion_ql.DIFFUSION_QL,
    "edp": edp.EDP,
    "sfbc": sfbc.SFBC,
    "cfcql": cfcql.CFCQL,
    "iql-ind": iql_ind.IQL_IND,
}
