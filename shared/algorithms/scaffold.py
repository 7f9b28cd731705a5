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

    After K steps of rate r, from weights x to y, the site's is c_i' = c_i - c + (x - y) / (K r). Source: Karimireddy et
    al. 2020, arXiv:1910.06378, algorithm 1 with option II, where the server adds the mean of c_i' - c_i, times the part
    of the sites that counted, to c: algorithm.control=sum. Sites weigh as in the fold.

    No round ever takes anything out of such a sum, neither what a hostile site added nor what a site that starts anew
    had added before. With control=mean c moves towards the mean of c_i' instead, by the same part. Where all sites
    count in each round both are the same.
    """

    sent = returned = kept = (CONTROL,)
    corrects = True

    def correct(self, parameters: "Mapping[str, Tensor]", local: Local) -> None:
        """Add c - c_i."""
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                parameter.grad += local.sent["control"][name] - local.kept["control"][name]

    def finish(self, parameters: "Mapping[str, Tensor]", local: Local) -> tuple[Groups, Groups]:
        """Keep c_i', and return what c moves towards."""
        own, towards = {}, {}
        for name, parameter in parameters.items():
            gradient = (local.start[name] - parameter.detach()) / (local.steps * local.rate)
            own[name] = local.kept["control"][name] - local.sent["control"][name] + gradient
            change = own[name] - local.kept["control"][name]
            towards[name] = own[name] if local.config.control == "mean" else local.sent["control"][name] + change
        return {"control": towards}, {"control": own}

    def step(self, groups: Groups, folded: Groups, part: float) -> Groups:
        """Move c."""
        return {"control": {name: old.lerp(folded["control"][name], part) for name, old in groups["control"].items()}}
