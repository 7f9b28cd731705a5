"""gliofed-simulate whose sites wait in a round on Ray: held_on_ray.py FOLDER ROUND WORD ...

A site that trains in that round writes FOLDER/SITE@NODE, with its process' number, and goes on once FOLDER/go is there.
The engine takes no mods of its own, so its run_here is replaced; Ray pickles what is in this file by value.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

import ray
from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from gliofed.shared.entry import simulate
from gliofed.shared.messages import Request
from gliofed.simulation import ray_engine


def hold(folder: Path, round: int, message: Message, context: Context, inner: ClientAppCallable) -> Message:
    if message.metadata.message_type == "train" and Request.from_records(message.content).round == round:
        site, node = message.metadata.dst_node_id, ray.get_runtime_context().get_node_id()
        (folder / f"new-{site}").write_text(str(os.getpid()))
        (folder / f"new-{site}").rename(folder / f"{site}@{node}")
        while not (folder / "go").exists():
            time.sleep(0.05)
    return inner(message, context)


if __name__ == "__main__":
    folder, number, *words = sys.argv[1:]
    here = ray_engine.run_here
    ray_engine.run_here = lambda federation, sites, at_once, mods, elsewhere: here(
        federation, sites, at_once, [partial(hold, Path(folder), int(number))], elsewhere
    )
    sys.argv[1:] = words
    simulate()
