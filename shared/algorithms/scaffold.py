"""SCAFFOLD: control variates take the drift out of a site's steps."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gliofed.shared.algorithms.fedavg import FedAvg
from gliofed.shared.algorithms.groups import Group, Groups, Local

if TYPE_CHECKING:
    from torch import Tensor

CONTROL = Group("control")


class Scaffold(FedAvg):
    """A site steps along g - c_i + c: its own control variate out, the server's in.

    After K steps of rate r, from weights x to y, the site's is c_i' = c_i - c + (x - y) / (K r), of which it returns
    the change; the server adds the mean change, times the part of the sites that counted, to c.
    Source: Karimireddy et al. 2020, arXiv:1910.06378, algorithm 1 with option II. Sites weigh as in the fold.
    """

    sent = returned = kept = (CONTROL,)
    corrects = True

    def correct(self, parameters: "Mapping[str, Tensor]", local: Local) -> None:
        """Add c - c_i."""
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                parameter.grad += local.sent["control"][name] - local.kept["control"][name]

    def finish(self, parameters: "Mapping[str, Tensor]", local: Local) -> tuple[Groups, Groups]:
        """Return the change of c_i, and keep c_i'."""
        change, own = {}, {}
        for name, parameter in parameters.items():
            gradient = (local.start[name] - parameter.detach()) / (local.steps * local.rate)
            change[name] = gradient - local.sent["control"][name]
            own[name] = local.kept["control"][name] + change[name]
        return {"control": change}, {"control": own}

    def step(self, groups: Groups, folded: Groups, part: float) -> Groups:
        """Add the mean change to c."""
        return {"control": {name: old + part * folded["control"][name] for name, old in groups["control"].items()}}
