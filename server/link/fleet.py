"""Flower's SuperLink, which here takes nothing from a hospital but its own replies.

Flower checks whose signature a call has, and not that the message in it is of the same node, or a reply at all: a
hospital could send another one a request in the server's name. It also stores a time that is no number, and fails
whenever that reply is asked for. So a private name of it is replaced, in this file, which refuses to run with another
Flower.
"""

import math
import sys
from collections.abc import Callable

from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.superlink.cli import flower_superlink
from flwr.superlink.servicer.fleet import fleet_handlers

from gliofed.shared.flower import other_version

Push = Callable[[PushMessagesRequest, LinkState], PushMessagesResponse]


def main() -> None:
    """Run it with the command's own words."""
    if reason := other_version("hospitals are known to be kept apart"):
        sys.exit(reason)
    fleet_handlers.push_messages = guarded(fleet_handlers.push_messages)  # type: ignore[assignment]  # other names
    flower_superlink()


def guarded(push_messages: Push) -> Push:
    """Flower's own, for the sender's own reply alone; FlowerError, which is HTTP 412, over anything else."""

    def push(request: PushMessagesRequest, state: LinkState) -> PushMessagesResponse:
        if reason := refusal(request):
            sentence = f"node {request.node.node_id} sent what it may not: {reason}"
            raise FlowerError(ApiErrorCode.FORBIDDEN_ACTION, sentence)
        return push_messages(request, state)

    return push


def refusal(request: PushMessagesRequest) -> str | None:
    """Say why a message is not taken; the call's own node is the one whose key has signed it."""
    if (len(request.messages_list), len(request.message_object_trees)) != (1, 1):
        return "not one message with one list of its parts"
    about = request.messages_list[0].metadata
    if about.src_node_id != request.node.node_id:
        return "a message of another node"
    if not about.reply_to_message_id:
        return "a message that is no reply"
    if not (math.isfinite(about.created_at) and math.isfinite(about.ttl)):
        return "a time that is no number"
    return None


if __name__ == "__main__":
    main()
