"""Opens a timelocked blob with the field's own package: `timelock_open.py BLOB SIGNATURE`, both as hex.

Prints the plaintext as hex. Needs bittensor-drand."""

import sys

import bittensor_drand

blob, signature = sys.argv[1:]
print(bytes(bittensor_drand.decrypt_with_signature(bytes.fromhex(blob), signature)).hex())
