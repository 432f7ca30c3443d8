"""The reads of one validator poll through the bittensor package, timed.

Prints one JSON object: per poll the requests, the bytes received and the milliseconds, and what was
read, so that the caller can compare it with its own answer.

    chain_poll_bittensor.py ENDPOINT NETUID POLLS
"""

import asyncio
import json
import sys
import time

import bittensor
from websockets.asyncio.client import ClientConnection

COUNTED = {"requests": 0, "bytes": 0, "running": False}


def count_wire():
    """Counts what goes through the library's WebSocket."""
    send, recv = ClientConnection.send, ClientConnection.recv

    async def counted_send(self, message, *args, **kwargs):
        COUNTED["requests"] += COUNTED["running"]
        return await send(self, message, *args, **kwargs)

    async def counted_recv(self, *args, **kwargs):
        message = await recv(self, *args, **kwargs)
        COUNTED["bytes"] += len(message) * COUNTED["running"]
        return message

    ClientConnection.send, ClientConnection.recv = counted_send, counted_recv


async def poll(client, netuid):
    """The package's own way: the whole metagraph with its parameters, the commitments, the clock."""
    view = await client.at(await client.finalized_block())
    graph, _, _ = await asyncio.gather(
        view.subnets.metagraph(netuid),
        view.query(("SubtensorModule", "StakeThreshold")),
        view.timestamp(),
    )
    return len(graph.neurons), len(graph.commitments)


async def main():
    endpoint, netuid, polls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    count_wire()
    begun = time.perf_counter()
    async with bittensor.Client(endpoint) as client:
        await poll(client, netuid)
        first = time.perf_counter() - begun
        times = []
        for _ in range(polls):
            # Each poll sees a new block, as in real life.
            await client._substrate.raw.rpc_request("dev_seal", [])
            COUNTED["running"], begun = True, time.perf_counter()
            neurons, commitments = await poll(client, netuid)
            times.append((time.perf_counter() - begun) * 1000)
            COUNTED["running"] = False
    times.sort()
    print(json.dumps({
        "neurons": neurons,
        "commitments": commitments,
        "requests": COUNTED["requests"] / polls,
        "bytes": COUNTED["bytes"] / polls,
        "median_ms": times[len(times) // 2],
        "connect_and_first_ms": first * 1000,
    }))


asyncio.run(main())
