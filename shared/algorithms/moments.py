"""Moments of the local optimiser that go on from round to round: kept at a site, or averaged over the sites.

Averaged they are those of Mills et al. 2020, doi:10.1109/JIOT.2019.2956615, algorithm 1.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gliofed.shared.algorithms.groups import Group, Groups, Local
from gliofed.shared.algorithms.optimizers import OPTIMIZERS, OptimizerConfig

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

STEP = Group("step")
"""How many steps an optimiser's moments are of, in a tensor for each parameter, as PyTorch has it."""


def moments_of(config: OptimizerConfig) -> tuple[Group, ...]:
    """The groups that are kept or averaged, if any."""
    moments = OPTIMIZERS[config.name].moments
    return {"fresh": (), "kept": (*moments, STEP), "averaged": moments}[config.moments]


def load_moments(stepper: "Optimizer", parameters: "Mapping[str, nn.Parameter]", local: Local) -> None:
    """Let an optimiser go on from the moments that the site kept, or that came beside the weights, if there are any."""
    from torch import tensor

    averaged = local.optimizer.moments == "averaged"
    groups = local.sent if averaged else local.kept
    for name, parameter in parameters.items():
        found = {group.name: groups.get(group.name, {}).get(name) for group in moments_of(local.optimizer)}
        if state := {key: value.clone() for key, value in found.items() if value is not None}:
            steps = tensor(float((local.round - 1) * local.steps)) if averaged else state.get(STEP.name, tensor(0.0))
            # A fused AdamW has it beside the parameter, any other on the CPU; SGD counts none.
            there = parameter.device if stepper.defaults.get("fused") else "cpu"
            stepper.state[parameter] = state | {STEP.name: steps.to(there)}


def read_moments(stepper: "Optimizer", parameters: "Mapping[str, nn.Parameter]", local: Local) -> tuple[Groups, Groups]:
    """What is returned of an optimiser's moments after the last step, and what is kept of them."""
    moments: Groups = {group.name: {} for group in moments_of(local.optimizer)}
    for name, parameter in parameters.items():
        state = stepper.state.get(parameter, {})
        for group in moments.keys() & state.keys():
            moments[group][name] = state[group]
    if local.optimizer.moments == "kept":
        return {}, moments
    sent = {group: local.sent[group] for group in moments}
    return {group: {name: moments[group].get(name, old) for name, old in sent[group].items()} for group in sent}, {}


MOST_RATIO = 7.3
"""No gradients bring |exp_avg| above 7.27 sqrt(exp_avg_sq): by Cauchy and Schwarz, with AdamW's betas b and c of 0.9
and 0.999, the ratio is at most (1 - b) / sqrt((1 - c) (1 - b^2 / c)). It holds for means over sites, too."""


def possible(moments: Groups) -> Groups:
    """The moments, of which AdamW's first is cut to what goes with the second: a step is their ratio, which a hostile
    site makes as large as it likes where nobody has a second one.
    """
    if "exp_avg_sq" not in moments:
        return moments
    most = {name: MOST_RATIO * each.sqrt() for name, each in moments["exp_avg_sq"].items()}
    return moments | {"exp_avg": {n: each.clamp(-most[n], most[n]) for n, each in moments["exp_avg"].items()}}
