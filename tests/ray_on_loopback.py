"""A Ray cluster of two nodes, each with room for one site, until standard input ends; prints its address and its nodes.

127.0.0.1, for with any other address Ray listens on all of the host's.
"""

import json
import sys
from typing import Any

from ray.cluster_utils import Cluster


def described(node: Any) -> tuple[str, int]:
    """A node's id and the number of its process, whose children do its tasks."""
    (raylet,) = node.all_processes["raylet"]
    return node.node_id, raylet.process.pid


if __name__ == "__main__":
    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        second = cluster.add_node(**node)
        print(json.dumps([cluster.address, described(cluster.head_node), described(second)]), flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()
