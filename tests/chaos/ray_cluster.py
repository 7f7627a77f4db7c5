"""A Ray cluster of several nodes on this machine, led through stdin: `add`, `remove`; each answered by a line.

A process of its own, so that neither Ray's import nor its threads are in the tests'. The nodes share no folder with
the study: theirs is another temporary folder, and stores are looked for where the coordinator has them not.
"""

import sys
from typing import Any

from ray.cluster_utils import Cluster

SMALL: dict[str, Any] = {"object_store_memory": 100 << 20}


def main() -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **SMALL})
    nodes: list[Any] = []
    try:
        print(cluster.address, flush=True)
        for line in sys.stdin:
            if line.strip() == "add":
                nodes.append(cluster.add_node(num_cpus=1, **SMALL))
            else:
                cluster.remove_node(nodes.pop(0), allow_graceful=False)
            print(len(nodes), flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
