"""A Python client of the field against the dev chain; every failed expectation ends it with 1.

Usage: devchain_client.py ws://HOST:PORT
"""

import asyncio
import sys

from async_substrate_interface import AsyncSubstrateInterface
from bittensor_wallet import Keypair

NETUID = 11
TEXT = b"2:org/model:rev:chatml:d1"


async def main(url: str) -> None:
    async with AsyncSubstrateInterface(url, ss58_format=42, chain_name="Bittensor") as substrate:
        pallets = {p["name"] for p in await substrate.get_metadata_modules()}
        assert {"SubtensorModule", "Commitments"} <= pallets, pallets

        metagraph = await substrate.runtime_call(
            "SubnetInfoRuntimeApi", "get_selective_metagraph", [NETUID, [0, 8, 52, 57, 69]]
        )
        fields = metagraph.value if hasattr(metagraph, "value") else metagraph
        assert fields["netuid"] == NETUID, fields
        assert fields["tempo"] == 20, fields
        assert len(fields["hotkeys"]) == 10, fields
        assert fields["validator_permit"][1] is True, fields
        assert fields["total_stake"][1] == 5_000_000_000_000, fields

        miner = Keypair.create_from_uri("//Miner6")
        call = await substrate.compose_call(
            call_module="Commitments",
            call_function="set_commitment",
            call_params={
                "netuid": NETUID,
                "info": {"fields": [[{f"Raw{len(TEXT)}": "0x" + TEXT.hex()}]]},
            },
        )
        extrinsic = await substrate.create_signed_extrinsic(call, miner, era={"period": 64})
        receipt = await substrate.submit_extrinsic(extrinsic, wait_for_inclusion=True)
        assert await receipt.is_success, await receipt.error_message
        print("included in", receipt.block_hash)

        stored = await substrate.query("Commitments", "CommitmentOf", [NETUID, miner.ss58_address])
        stored = stored.value if hasattr(stored, "value") else stored
        field = stored["info"]["fields"][0]
        while isinstance(field, (list, tuple)):
            field = field[0]
        ((name, value),) = field.items()
        while isinstance(value, (list, tuple)) and not isinstance(value[0], int):
            value = value[0]
        raw = bytes.fromhex(value[2:]) if isinstance(value, str) else bytes(value)
        assert name == f"Raw{len(TEXT)}" and raw == TEXT, stored

        found = {}
        async for account, _ in await substrate.query_map("Commitments", "CommitmentOf", [NETUID]):
            found[str(account)] = True
        assert len(found) == 1, found

        # The chain's refusal reaches the client as an error, not as a success.
        stranger = Keypair.create_from_uri("//Nobody")
        extrinsic = await substrate.create_signed_extrinsic(call, stranger, era={"period": 64})
        receipt = await substrate.submit_extrinsic(extrinsic, wait_for_inclusion=True)
        assert not await receipt.is_success
        error = await receipt.error_message
        assert error["name"] == "AccountNotAllowedCommit", error
        print("refused with", error["name"])


asyncio.run(asyncio.wait_for(main(sys.argv[1]), timeout=60))
