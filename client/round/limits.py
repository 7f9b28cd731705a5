"""Whether what is asked for fits: judged by the config and the weights' header, before memory is taken for either."""

from torch import Tensor

from gliofed.client.round.policy import DeclinedError
from gliofed.shared.codec import CodecError, check_weights
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import MessageError, Request
from gliofed.shared.site_config import PolicyConfig
from gliofed.shared.sizes import count, model_sentence, outline, step_sentence, step_voxels


def check_size(policy: PolicyConfig, run: RunConfig) -> None:
    """Decline a model or a step that is larger than the hospital allows.

    Raises MessageError for a model that cannot be, and for a run beyond the limits of any.
    """
    parameters = count(_outline(run))
    if policy.max_parameters is not None and parameters > policy.max_parameters:
        sentence = f"{model_sentence(run, parameters)}; policy.max_parameters allows {policy.max_parameters}"
        raise DeclinedError("policy", sentence)
    voxels = step_voxels(run)
    if policy.max_step_voxels is not None and voxels > policy.max_step_voxels:
        sentence = f"{step_sentence(voxels)}; policy.max_step_voxels allows {policy.max_step_voxels}"
        raise DeclinedError("policy", sentence)


def check_header(request: Request) -> None:
    """Raise MessageError unless the weights' names, shapes and types are those of the run's model."""
    try:
        check_weights(request.weights, _outline(request.config))
    except CodecError as error:
        raise MessageError(str(error)) from None


def _outline(run: RunConfig) -> dict[str, Tensor]:
    try:
        return outline(run)
    except ValueError as error:
        raise MessageError(str(error)) from None
