"""Flower's private names that gliofed uses: by file, with the purpose, the signature and the lines that it relies on.

`tests/shared/test_flower.py` compares them with the Flower that is installed. CONTRIBUTING.md says what to do about a
difference.
"""

import inspect
import re
from typing import Any, NamedTuple, get_origin

from google.protobuf.message import Message as ProtobufMessage


class Use(NamedTuple):
    """One name that a file uses."""

    name: str
    """As pkgutil.resolve_name takes it: module:name."""
    purpose: str
    signature: str | None = None
    """Parameters without types, fields of a protobuf message, or the value. None: gliofed does not call or read it."""
    lines: tuple[str, ...] = ()
    """Code of it that gliofed relies on, each with single spaces in the place of line breaks."""


LINK = "flwr.supernode.start_client_internal"
STATE = "flwr.supernode.nodestate.in_memory_nodestate"
OBJECTS = "flwr.supercore.object_store:ObjectStore"
INFLATABLE = "flwr.supercore.inflatable"
FLEET_CLIENT = "flwr.supernode.fleet_http_client:FleetHttpClient"
CONTROL = "flwr.supercore.control.control_http_client:ControlHttpClient"
CALL = "a call to the SuperLink"
APP = "Callable[[Message, Context], Message]"
MOD = f"Callable[[Message, Context, {APP}], Message]"
IN_PARTS = "what a reply is made of is measured before it is put together"

USES = {  # formatted by hand, for it is read as a table
    "client/app.py": [
        Use("flwr.clientapp.typing:Mod", "type of what goes around an answer", MOD),
    ],
    "client/link/clientapp.py": [
        Use("flwr.supernode.runtime.run_clientapp:run_clientapp", "answers one request; its Error is replaced",
            "(runtime_api_address, token, insecure, certificates=None, parent_pid=None, "
            "runtime_dependency_install=False)",
            ("reply_message = Message(Error(code=e_code, reason=reason), reply_to=message)",)),
        Use("flwr.supernode.runtime.run_clientapp:Error", "replaced, so that no words of an exception leave",
            "(code, reason=None)"),
    ],
    "client/link/execute.py": [
        Use("flwr.common.constant:Status.PENDING", "which tasks wait", "'pending'"),
        Use("flwr.common.constant:SubStatus.FAILED", "how a task ends whose process gave no reply", "'failed'"),
        Use("flwr.proto.task_pb2:Task", "one request to be answered", "(task_id, type, run_id, status, pending_at, "
            "starting_at, running_at, finished_at, fab_hash, model_ref, connector_ref, connector_id)"),
        Use(f"{INFLATABLE}.inflatable_object:iterate_object_tree", "whether all parts of a reply are there", "(tree)"),
        Use(f"{OBJECTS}.get_object_tree", "whether all parts of a reply are there", "(self, object_id)"),
        Use(f"{OBJECTS}.get", "whether all parts of a reply are there", "(self, object_id)"),
        Use(f"{OBJECTS}.delete", "half a reply is removed", "(self, object_id)"),
        Use(f"{STATE}:CLIENT_APP_CRASHED_ERROR", "the reply in the place of one that a process did not give",
            "Error(code=8, reason='ClientApp stopped responding.')"),
        Use(f"{STATE}:InMemoryNodeState", "its messages are looked through", "(object_store)",
            ("self.msg_store: dict[str, MessageEntry] = {}",)),
        Use(f"{STATE}:InMemoryNodeState.delete_messages", "half a reply, and older requests, are removed",
            "(self, *, message_ids=None)"),
        Use(f"{STATE}:InMemoryNodeState.get_tasks", "the newest is the request's", "(self, *, task_ids=None, "
            "run_ids=None, statuses=None, order_by=None, ascending=True, limit=None)"),
        Use(f"{STATE}:InMemoryNodeState.finish_task", "without effect on a task that is finished",
            "(self, task_id, sub_status, details)"),
        Use(f"{STATE}:InMemoryNodeState.get_run", "leads from a task to its code", "(self, run_id)"),
        Use(f"{STATE}:InMemoryNodeState.get_fab", "the code, whose approval is looked up again", "(self, fab_hash)"),
        Use(f"{STATE}:InMemoryNodeState.claim_task", "gives the token of a process", "(self, task_id)"),
        Use(f"{STATE}:InMemoryNodeState.acknowledge_task_heartbeat", "gives a process time to load",
            "(self, task_id)"),
        Use(f"{STATE}:InMemoryNodeState.get_task_by_token", "None once the process has given its output",
            "(self, token)"),
        Use(f"{LINK}:FAB_VERIFICATION_ERROR", "the reply to a request of code that is not approved any more",
            "Error(code=7, reason='The FAB could not be verified.')"),
        Use(f"{LINK}:_insert_message", "puts an error in the place of a reply", "(msg, state, store)"),
    ],
    "client/link/life.py": [
        Use("flwr.supercore.error:FlowerError.from_json", "the code of a refusal, for status", "(value)"),
    ],
    "client/link/supernode.py": [
        Use(f"{LINK}:start_client_internal", "calls both replaced functions by keywords, in turns", None,
            ("run_id = _pull_and_store_message( state=state, object_store=store, node_config=node_config, ",
             "if run_id is None: ",
             "_push_messages( state=state, object_store=store, send=send, push_object=push_object, )")),
        Use(f"{LINK}:_pull_and_store_message", "replaced, so that all code is checked and each request is known",
            "(state, object_store, node_config, receive, get_run, get_fab, pull_object, confirm_message_received, "
            "trusted_entities)",
            ("if (recv := receive()) is None: return None message, object_tree = recv",
             "run_info = get_run(run_id)",
             "fab = get_fab(run_info.fab_hash, run_id)",
             'if trusted_entities: if not fab.verifications.get("valid_license", ""):',
             "fab_verified = _verify_fab(fab, trusted_entities) if not fab_verified:",
             "state.store_run(run_info) state.store_fab(fab)")),
        Use(f"{LINK}:_push_messages", "replaced, so that a request is answered before its reply is sent",
            "(state, object_store, send, push_object)", ("send(message, object_tree, clientapp_runtime)",)),
        Use(f"{LINK}:_verify_fab", "replaced by the hospital's approval", "(fab, trusted_entities)"),
        Use("flwr.common.config:get_fab_config", "by what the code is found when it is run", "(fab_file)"),
        Use("flwr.common.config:get_metadata_from_config", "by what the code is found when it is run", "(config)"),
        Use("flwr.supercore.constant:TaskType.SERVER_APP", "of a run, so that its requests are for the ClientApp",
            "<TaskType.SERVER_APP: 'flwr-serverapp'>"),
        Use("flwr.supercore.fab:Fab", "code as it came", "(hash_str, content, verifications)"),
        Use("flwr.supercore.run:Run", "says which code is run", "(run_id, fab_id, fab_version, fab_hash, "
            "override_config, pending_at, starting_at, running_at, finished_at, status, flwr_aid, federation_id, "
            "primary_task_id, bytes_sent, bytes_recv, clientapp_runtime, primary_task_type='', series_id=0, "
            "account_name='')"),
        Use("flwr.supernode.cli.flower_supernode:flower_supernode", "the SuperNode; options from sys.argv", "()"),
        Use(f"{FLEET_CLIENT}.__init__", "replaced, so that no redirection is followed",
            "(self, base_url, *, interceptors=(), verify=True, timeout=30.0, retry_invoker=None)",
            ("self._client = httpx.Client(", "follow_redirects=True")),
        Use(f"{FLEET_CLIENT}.ActivateNode", "replaced: whether the aggregator is reached", "(self, request)"),
        Use(f"{FLEET_CLIENT}.SendNodeHeartbeat", "replaced: whether the aggregator is reached", "(self, request)"),
        Use(f"{FLEET_CLIENT}.PullMessages", "replaced: whether the aggregator is reached", "(self, request)"),
    ],
    "server/link/control.py": [
        Use("flwr.common.serde:user_config_to_proto", "a run's settings", "(user_config)"),
        Use("flwr.proto.control_pb2:ListNodesRequest", CALL, "()"),
        Use("flwr.proto.control_pb2:ListRunsRequest", CALL, "(run_id, limit, skip)"),
        Use("flwr.proto.control_pb2:RegisterNodeRequest", CALL, "(public_key, location, name)"),
        Use("flwr.proto.control_pb2:StartRunRequest", CALL, "(fab, override_config, override_federation_config, "
            "app_spec, federation, series_id, connector_refs, user_prompt, connector_ids)"),
        Use("flwr.proto.control_pb2:StopRunRequest", CALL, "(run_id)"),
        Use("flwr.proto.control_pb2:UnregisterNodeRequest", CALL, "(node_id)"),
        Use("flwr.proto.fab_pb2:Fab", "a run's code", "(hash_str, content, verifications)"),
        Use(f"{CONTROL}.from_server_address", "a connection to the SuperLink",
            "(server_address, insecure, root_certificates, interceptors, *, retry_invoker=None)"),
        Use(f"{CONTROL}.ListNodes", CALL, "(self, request)"),
        Use(f"{CONTROL}.ListRuns", CALL, "(self, request)"),
        Use(f"{CONTROL}.RegisterNode", CALL, "(self, request)"),
        Use(f"{CONTROL}.StartRun", CALL, "(self, request)"),
        Use(f"{CONTROL}.StopRun", CALL, "(self, request)"),
        Use(f"{CONTROL}.UnregisterNode", CALL, "(self, request)"),
        Use("flwr.supercore.error:FlowerError", "a refusal", "(code, message, public_details=None)"),
        Use("flwr.supercore.interceptors:RuntimeVersionHttpInterceptor", "says Flower's version in each call",
            "(component_name)"),
        Use("flwr.supercore.primitives.asymmetric:public_key_to_bytes", "a key as the SuperLink lists it",
            "(public_key)"),
    ],
    "server/link/fleet.py": [
        Use("flwr.proto.fleet_pb2:PushMessagesRequest", "a reply of a hospital",
            "(node, messages_list, message_object_trees, clientapp_runtime_list)"),
        Use("flwr.proto.fleet_pb2:PushMessagesResponse", "type of the answer to it",
            "(reconnect, results, objects_to_push, session_id)"),
        Use("flwr.server.superlink.linkstate:LinkState", "type of what is handed on"),
        Use("flwr.supercore.error:ApiErrorCode.FORBIDDEN_ACTION", "the refusal of what is not the hospital's own",
            "<ApiErrorCode.FORBIDDEN_ACTION: 10>"),
        Use("flwr.supercore.error:FlowerError", "the refusal of what is not the hospital's own",
            "(code, message, public_details=None)"),
        Use("flwr.superlink.cli:flower_superlink", "the SuperLink; options from sys.argv", "()"),
        Use("flwr.superlink.servicer.fleet.fleet_handlers:push_messages", "replaced by a check around it",
            "(request, state)", ("request.messages_list[0]", "request.message_object_trees[0]")),
        Use("flwr.superlink.routers.fleet.router:fleet_push_messages", "finds push_messages when it is called", None,
            ("return fleet_handlers.push_messages(request=request, state=state)",)),
    ],
    "server/round/pulling.py": [
        Use("flwr.app.message.arraychunk:ArrayChunk", IN_PARTS, "(data)"),
        Use("flwr.app:Array.inflate", IN_PARTS, None,
            ('chunk_ids_indices = cast(list[int], array_metadata["arraychunk_ids"])',
             "chunk_ids = [children_ids[i] for i in chunk_ids_indices]")),
        Use("flwr.supercore.error:FlowerError", "the SuperLink's fault, and no site's",
            "(code, message, public_details=None)"),
        Use(f"{INFLATABLE}.inflatable_object:get_object_body", IN_PARTS, "(object_content, cls)"),
        Use(f"{INFLATABLE}.inflatable_object:get_object_head_values_from_object_content", IN_PARTS,
            "(object_content)"),
        Use(f"{INFLATABLE}.inflatable_utils:inflate_object_from_contents", "puts a reply together",
            "(object_id, object_contents, *, keep_object_contents=False, objects=None)"),
        Use(f"{INFLATABLE}.inflatable_utils:pull_objects", "pulls a reply's parts", "(object_ids, pull_object_fn, *, "
            "max_concurrent_pulls=2, max_time=7200, max_tries_per_object=500, initial_backoff=1, backoff_cap=10)"),
        Use("flwr.superlink.grid.http_grid:HttpGrid.pull_messages", "the functions that it calls are replaced",
            "(self, message_ids)",
            ("self._runtime_client.PullMessages(",
             "all_object_contents = pull_objects( object_ids=[ tree.object_id for tree in iterate_object_tree("
             "msg_tree) ], pull_object_fn=",
             "inflate_object_from_contents(msg_id, all_object_contents)")),
        Use("flwr.supercore.runtime:RuntimeHttpClient.PullMessages", "replaced, so that nothing else is taken",
            "(self, request)"),
    ],
    "shared/code.py": [
        Use("flwr.cli.build:build_fab_from_files", "bundles the code that hospitals approve by its hash", "(files)"),
    ],
    "simulation/fault_mod.py": [
        Use("flwr.clientapp.typing:ClientAppCallable", "type of an app", APP),
        Use("flwr.clientapp.typing:Mod", "type of what goes around an answer", MOD),
    ],
    "simulation/grid.py": [
        Use("flwr.clientapp.typing:ClientAppCallable", "type of an app", APP),
        Use("flwr.common.constant:SUPERLINK_NODE_ID", "who sends a request", "1"),
        Use("flwr.common.constant:ErrorCode.CLIENT_APP_RAISED_EXCEPTION", "the reply of an app that failed", "2"),
        Use("flwr.supercore.run:Run.create_empty", "what a Grid has", "(run_id)"),
        Use("flwr.supercore.task_identity:TaskIdentity", "set, for a Message asks it who speaks", "()",
            ("_task_id: int | None = None _run_id: int | None = None _node_id: int | None = None",)),
        Use("flwr.app:Metadata.__init__", "a message's id is set in its __dict__", None,
            ('"_message_id": message_id,', "self.__dict__.update(var_dict)")),
    ],
    "simulation/local_engine.py": [
        Use("flwr.clientapp.typing:ClientAppCallable", "type of an app", APP),
        Use("flwr.clientapp.typing:Mod", "type of what goes around an answer", MOD),
    ],
    "simulation/ray_engine.py": [
        Use("flwr.clientapp.typing:ClientAppCallable", "type of an app", APP),
        Use("flwr.clientapp.typing:Mod", "type of what goes around an answer", MOD),
    ],
}  # fmt: skip


def signature_of(value: Any) -> str:
    """Write it as `Use.signature` has it."""
    if inspect.isclass(value) and issubclass(value, ProtobufMessage):
        return f"({', '.join(value.DESCRIPTOR.fields_by_name)})"
    if get_origin(value) is not None:  # a type, with the modules that its parts are from
        return re.sub(r"\b[a-z.]+\.", "", str(value))
    if not callable(value):
        return repr(value)
    signature = inspect.signature(value)
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
