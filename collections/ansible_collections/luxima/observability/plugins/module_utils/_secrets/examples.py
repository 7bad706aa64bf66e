# Copyright: luxima.observability contributors
# GNU General Public License v3.0+ (see LICENSE)
"""The secrets of the shipped inventories, which everybody can read: known by their digests, wherever they were copied to."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Mapping
from typing import Any

from ansible.parsing.vault import VaultHelper

#: The vault identity whose password is public.
IDENTITY = "example"
#: What examples look like that somebody makes from the shipped ones.
PREFIX = "example-"
#: SHA-256 of every shipped value; `tests/data` holds it against the inventories and prints the list that belongs here.
DIGESTS = frozenset(
    [
        "04084bbc6ef986c93723af618ae1540582232ff092b9fdbbabc9d7385472244d",
        "11d02972a514d583fe5c4515fc2a14353b55ac45632a2319dd5e63081c9ed313",
        "1df12d215bc80ad606af08117a48a8aaebadbd9d0ef623a5ef78bf928d504ffa",
        "23daed2f3a07e53e8812dc232744f9f217fe24d9647abdba23e3c4532a97bf8f",
        "27a9ac9c0d223aed8921f03b76acc63bf45491625d7071e16dd8289eaeca4a62",
        "38b35245a126838eafea777298e8770e997581c44072c3fdc746e32ef43157ff",
        "4d983020e569b8e0d25d4276e6d9be7eb7213d2c02fa39630023a01ee16a98ad",
        "4e7a407c8e7c04e2391412735c00be4e56353d9670dc63b9cfcb62582aa52ea5",
        "51b57ea15c793f868dd5de544bc4a12212ee64a9211dd8909f403e678f6a4c2c",
        "52627a70f44b87302c3c377e8f16d052c3c6a1f304a5ed01d3c1dc1288fb0f0f",
        "53dd862ebe45c784654890385f63dd3a1d33cdf199860727e946360d86ae4c8f",
        "5a457fe053f392f1c865de371480a2cb9069f3309c708d4a02982143732d08f1",
        "627058e89618771fccd7b50f10c7918ee4ed5deab0e194f7dc89ec99348610ad",
        "6e20ff8bec27fec2b7329c6eca721655f109e92db76fa54eed964d56b0caa341",
        "7a52ff011da8e74cf113b99bacbe0b9218dbd97be2abd4bf5b7b607368d156f0",
        "8a8f04940f42a96407724b68a18fc2e7a0b761d252dd01e835f1c9d149240281",
        "9a48c5a5588a7fc7126e4171e4446c5f7cca43e38e76fc69d9cbde954c126874",
        "9ca795eca9ea2877c2017eb74971075c47010a9c26043c0346bfe9f1c229a615",
        "a921f98fc5b584e9002ca6483efecd924c00674a28b526346195f0b076f2c723",
        "ba96026981e733a0bc3c1c2f302615c25c912b8a9ab92b109c3c16f653aacf23",
        "bade913f7b918c3a857749b235f7ed29cbca657ab45718361175213c20c90ead",
        "baedde23b6a38207db3c293c52ba40677de768f688346dc098ff4adb834cf49d",
        "bbd26c6cc8d77693fff8d9e06d6272e2dc2975c4dc91c4a950f20e2446245075",
        "d13acb095ef67dff245e9c33418d52444b4b9bff248b15cbe4b1263b8b614ea2",
        "e2c29923a49216281f8a30dcdfd6354147679ddd0289d3b9a12b81e1f931c9df",
        "e7ea4025931da9ccf695e91500c6faa65aa376427e80eed1c819c958abc4685b",
        "fd9ebd16e95900d8fae493a9062ac93c78c7962662c0ead3d8e6f6f6bc403d74",
    ]
)


def is_example(value: str) -> bool:
    """Whether everybody knows this secret; of a key that is written as `<name>:<base64>`, also the decoded one."""
    forms = [value]
    with contextlib.suppress(ValueError):
        forms.append(base64.b64decode(value.rpartition(":")[2], validate=True).decode())
    return any(
        form.startswith(PREFIX) or hashlib.sha256(form.encode()).hexdigest() in DIGESTS for form in forms
    )


def within(value: Any) -> bool:
    """Whether there is one in a text, or anywhere in lists and dictionaries."""
    if isinstance(value, Mapping):
        return any(map(within, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(within, value))
    return isinstance(value, str) and is_example(value)


def opened_by_all(raw: Any) -> bool:
    """Whether a variable, as the inventory has it, is encrypted with the identity whose password is public."""
    ciphertext = VaultHelper.get_ciphertext(raw, with_tags=False)
    return bool(ciphertext) and ciphertext.partition("\n")[0].endswith(f";{IDENTITY}")
