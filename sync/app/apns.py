"""Apple's push service out of the configuration: the gate, and what `convsync check` looks at."""

from contextlib import AsyncExitStack
from functools import partial

from sync.adapters.apns import ApnsApp, ApnsGate, ProviderKey
from sync.adapters.apns.client_certificate import BadClientCertificate, ClientCertificate, read_certificate
from sync.adapters.apns.tunnel import Proxy, tunnel
from sync.adapters.checks.apns import SigningKey, Target
from sync.adapters.postgres.pool import Pool
from sync.adapters.postgres.provider_tokens import PostgresProviderTokens
from sync.adapters.sealing import Sealer
from sync.config import Apns
from sync.config import ApnsApp as Wanted
from sync.ports import Clock, ProviderTokens
from sync.startup import CannotStart


async def open_apns(config: Apns, pool: Pool, sealer: Sealer, clock: Clock, stack: AsyncExitStack) -> ApnsGate:
    """The gate, connected. Raises `CannotStart`."""
    apps = [_app(app, number) for number, app in enumerate(config.apps, 1)]
    gate = ApnsGate(apps, _tokens(config, pool, sealer, clock), proxy=_proxy(config))
    await gate.open()
    stack.push_async_callback(gate.close)
    return gate


def signing_key(config: Apns) -> SigningKey | None:
    """What the check of the key needs; None where every app has a certificate."""
    if config.team_id is None or config.key_id is None or config.key_file is None:
        return None
    return SigningKey(team_id=config.team_id, key_id=config.key_id, file=config.key_file)


def targets(config: Apns) -> list[Target]:
    """What the check of the apps needs."""
    proxy = _proxy(config)
    found = []
    for app in config.apps:
        certificate, broken = None, None
        if app.certificate_file is not None:
            try:
                certificate = read_certificate(app.certificate_file, app.password)
            except BadClientCertificate as wrong:
                broken = str(wrong)
        host, port = app.address
        found.append(
            Target(
                name=app.name,
                bundle_id=app.bundle_id,
                host=host,
                port=port,
                ca_file=app.ca_file,
                certificate=certificate,
                broken=broken,
                reach=partial(tunnel, proxy) if proxy is not None else None,
            )
        )
    return found


def _tokens(config: Apns, pool: Pool, sealer: Sealer, clock: Clock) -> ProviderTokens | None:
    if config.team_id is None or config.key_id is None or config.key_file is None:
        return None
    try:
        pem = config.key_file.read_text(encoding="ascii")
        key = ProviderKey(team_id=config.team_id, key_id=config.key_id, pem=pem)
    except (OSError, ValueError) as error:
        raise CannotStart(f"[apns] key_file: this is no signing key ({type(error).__name__}).") from None
    return PostgresProviderTokens(pool.raw, key=key, seal=sealer, clock=clock)


def _app(app: Wanted, number: int) -> ApnsApp:
    certificate: ClientCertificate | None = None
    if app.certificate_file is not None:
        try:
            certificate = read_certificate(app.certificate_file, app.password)
        except BadClientCertificate as wrong:
            raise CannotStart(f"[apns] apps.{number}.certificate_file: {wrong}.") from None
    return ApnsApp(
        name=app.name,
        bundle_id=app.bundle_id,
        environment=app.environment,
        server=app.server and f"https://{app.server}",
        ca_file=app.ca_file,
        certificate=certificate,
    )


def _proxy(config: Apns) -> Proxy | None:
    return Proxy.of(config.proxy.get_secret_value()) if config.proxy is not None else None
