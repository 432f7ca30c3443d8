"""The reads of one validator poll through async-substrate-interface, timed.

Prints one JSON object: per poll the requests, the bytes received and the milliseconds, and what was
read, so that the caller can compare it with its own answer.

    chain_poll.py ENDPOINT NETUID POLLS
"""

import json
import os
import sys
import time
import traceback

from async_substrate_interface import SubstrateInterface

FIELDS = [0, 5, 6, 7, 8, 9, 10, 24, 25, 26, 27, 28, 29, 30, 31, 36, 46, 47, 52, 53, 56, 57, 59, 60,
          61, 62, 66, 67, 68, 69, 73]


class Meter:
    """Counts what goes through the library's WebSocket."""

    def __init__(self, ws):
        self.requests, self.received, self.running = 0, 0, False
        send, recv = ws.send, ws.recv

        def counted_send(message, *args, **kwargs):
            self.requests += self.running
            return send(message, *args, **kwargs)

        def counted_recv(*args, **kwargs):
            message = recv(*args, **kwargs)
            self.received += len(message) * self.running
            return message

        ws.send, ws.recv = counted_send, counted_recv


def registration_type(chain):
    """Type of the values of Commitments.CommitmentOf, by name from the chain's metadata."""
    runtime = chain.init_runtime()
    for pallet in runtime.metadata_v15.value[1]["V15"]["pallets"]:
        for entry in (pallet["storage"] or {"entries": []})["entries"]:
            if (pallet["name"], entry["name"]) == ("Commitments", "CommitmentOf"):
                return f"scale_info::{entry['type']['Map']['value']}"
    raise LookupError("the metadata has no Commitments.CommitmentOf")


def poll(chain, netuid, registration):
    at = chain.get_chain_finalised_head()
    metagraph = chain.runtime_call(
        "SubnetInfoRuntimeApi", "get_selective_metagraph", [netuid, FIELDS], block_hash=at)
    keys = [
        chain.create_storage_key("Timestamp", "Now", block_hash=at),
        chain.create_storage_key("SubtensorModule", "StakeThreshold", block_hash=at),
    ]
    chain.query_multi(keys, block_hash=at)
    commitments = [
        chain.decode_scale(registration, bytes(entry[1])) for entry in metagraph["commitments"]
    ]
    return len(metagraph["hotkeys"]), len(commitments)


def main():
    endpoint, netuid, polls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    begun = time.perf_counter()
    chain = SubstrateInterface(url=endpoint, ss58_format=42)
    registration = registration_type(chain)
    poll(chain, netuid, registration)
    first = time.perf_counter() - begun
    meter, times = Meter(chain.ws), []
    for _ in range(polls):
        # Each poll sees a new block, as in real life.
        chain.rpc_request("dev_seal", [])
        meter.running, begun = True, time.perf_counter()
        neurons, commitments = poll(chain, netuid, registration)
        times.append((time.perf_counter() - begun) * 1000)
        meter.running = False
    times.sort()
    print(json.dumps({
        "connect_and_first_ms": first * 1000,
        "median_ms": times[len(times) // 2],
        "requests": meter.requests / polls,
        "bytes": meter.received / polls,
        "neurons": neurons,
        "commitments": commitments,
    }))


if __name__ == "__main__":
    status = 0
    try:
        main()
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # The library's destructor waits for a closing handshake that may never come.
    os._exit(status)
