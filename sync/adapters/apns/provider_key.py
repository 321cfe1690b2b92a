"""The signing key of an APNs team, and the tokens that it makes.

It signs and nothing else: how long a token is used, who shares it and where it is kept is decided by whoever plays
`ProviderTokens`.
"""

from dataclasses import dataclass, field
from datetime import datetime

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderKey:
    """`pem`: the contents of Apple's `.p8` file; `key_id` and `team_id` as shown in the developer account.

    Raises ValueError when `pem` is no private key on an elliptic curve, so that a wrong file is noticed at start.
    """

    team_id: str
    key_id: str
    pem: str = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(load_pem_private_key(self.pem.encode(), password=None), EllipticCurvePrivateKey):
            raise ValueError("the APNs signing key must be an elliptic-curve private key")

    def mint(self, now: datetime) -> str:
        """A provider token issued at `now`. Apple: ES256, header `kid`, claims `iss` and `iat`."""
        claims = {"iss": self.team_id, "iat": int(now.timestamp())}
        return jwt.encode(claims, self.pem, algorithm="ES256", headers={"kid": self.key_id, "typ": None})
