"""Writes hotkey files with bittensor-wallet, in every form that it can write.

Usage: wallet_files.py FOLDER
Prints one JSON object: for each file the address that the package itself reads from it. All keys
are public development keys or thrown away; the password of the encrypted ones is PASSWORD.
"""

import json
import sys
from pathlib import Path

from bittensor_wallet import Keyfile, Keypair, Wallet
from bittensor_wallet.keyfile import legacy_encrypt_keyfile_data

PASSWORD = "public-test-password"
MNEMONIC = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"


def hotkey_file(folder, name, **secret):
    """A hotkey as `btcli wallet regen-hotkey` makes it."""
    wallet = Wallet(name="made", hotkey=name, path=str(folder))
    wallet.regenerate_hotkey(use_password=False, overwrite=True, suppress=True, **secret)
    return folder / "made" / "hotkeys" / name


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    hotkey_file(folder, "phrase", mnemonic=MNEMONIC)
    hotkey_file(folder, "random", mnemonic=Keypair.generate_mnemonic(24))
    hotkey_file(folder, "seed", seed="0x" + "11" * 32)
    uri = Wallet(name="made", hotkey="uri", path=str(folder))
    uri.set_hotkey(Keypair.create_from_uri("//Alice"), encrypt=False, overwrite=True)
    for name, key in [("encrypted", "//Alice"), ("encrypted-phrase", None)]:
        pair = Keypair.create_from_uri(key) if key else Keypair.create_from_mnemonic(MNEMONIC)
        keyfile = Keyfile(str(folder / "made" / "hotkeys" / name))
        keyfile.set_keypair(pair, encrypt=True, overwrite=True, password=PASSWORD)

    hotkeys = folder / "made" / "hotkeys"
    vault = legacy_encrypt_keyfile_data((hotkeys / "phrase").read_bytes(), PASSWORD)
    (hotkeys / "vault").write_bytes(vault)
    addresses = {}
    for path in sorted(hotkeys.iterdir()):
        if path.name.endswith("pub.txt"):
            continue
        try:
            addresses[path.name] = Keyfile(str(path)).get_keypair(PASSWORD).ss58_address
        except Exception as error:  # 4.1.1 cannot read back what it writes for a seed
            addresses[path.name] = f"unreadable for the package itself: {error}"
    print(json.dumps({"folder": str(hotkeys), "addresses": addresses}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
