"""The configuration: what may be set, its defaults, and why they are what they are.

One TOML file; every key can be overridden by an environment variable `CONVSYNC_<SECTION>__<KEY>`. Decides what a valid
value looks like and collects every fault of a file at once (`sync.config_faults` words them). The models are frozen and
hold no open files or connections. Refuses to know who uses a value: the composition root hands each part its numbers,
not this object. Secrets are `SecretStr`, so that no log line or traceback shows them by accident.
"""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from sync import config_faults as faults
from sync import config_forms as forms
from sync.model.jid import LANES
from sync.model.push import Environment

PREFIX = "CONVSYNC_"
ConfigError = faults.ConfigError

Jid = Annotated[str, AfterValidator(forms.jid)]
Host = Annotated[str, AfterValidator(forms.host)]
HostOrAny = Annotated[str, AfterValidator(forms.host_or_any)]
Port = Annotated[int, Field(ge=1, le=65535)]
SecretFile = Annotated[Path, AfterValidator(forms.readable_file)]
Seconds = Annotated[float, Field(gt=0, le=86400)]


class Section(BaseModel):
    """What all sections share: unknown keys are faults, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Component(Section):
    """Our connection to the XMPP server (XEP-0114), and the hosts whose feed we take."""

    jid: Jid
    secret: SecretStr | None = None
    secret_file: SecretFile | None = None
    server: str = Field(default="127.0.0.1", min_length=1)
    port: Port = 5347  # Prosody's default; ejabberd's examples use 8888
    tls: bool = False  # from the first byte (ejabberd_service with `tls: true`); a component's stream has no STARTTLS
    tls_ca: SecretFile | None = None  # who vouches for the server's certificate; without it, the system's CAs
    tls_name: Host | None = None  # the name in that certificate, where it is not `server`
    hosts: Annotated[tuple[Host, ...], AfterValidator(forms.some)]
    muc_hosts: tuple[Host, ...] = ()

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        forms.exactly_one("secret", self.secret, "secret_file", self.secret_file)
        if not self.password:
            raise ValueError("the secret is empty")
        if (self.tls_ca or self.tls_name) and not self.tls:
            raise ValueError("tls_ca and tls_name need tls = true")
        if len(set(self.hosts)) < len(self.hosts):
            raise ValueError("hosts names a host twice")
        if len({*self.hosts, *self.muc_hosts}) < len(self.hosts) + len(self.muc_hosts):
            raise ValueError("muc_hosts names a host twice, or one of hosts")
        return self

    @property
    def password(self) -> str:
        """The shared secret, from wherever it is kept."""
        if self.secret is not None:
            return self.secret.get_secret_value()
        return self.secret_file.read_text().strip() if self.secret_file else ""


class Postgres(Section):
    """The database: the only truth."""

    dsn: Annotated[SecretStr, AfterValidator(forms.postgres_url)]
    pool: int = Field(default=10, ge=2, le=200)  # connections: writers 3, the pusher 2, the rest answers queries
    connect_timeout_seconds: Seconds = 5.0
    statement_timeout_seconds: Seconds = 10.0  # longer than any statement of ours; a hanging one must not hold locks
    transaction_pooler: bool = False  # behind PgBouncer in transaction mode: no prepared statements
    direct_dsn: Annotated[SecretStr, AfterValidator(forms.postgres_url)] | None = None  # past it: the lease's session

    @property
    def lease_session(self) -> tuple[str, bool]:
        """Where the lease's session goes, and whether it is our own: then it is proof that we live."""
        own = self.direct_dsn is not None or not self.transaction_pooler
        return (self.direct_dsn or self.dsn).get_secret_value(), own


class Redis(Section):
    """Redis or Valkey: presence and hints, all of which may get lost. Without the section one process keeps them."""

    url: Annotated[SecretStr, AfterValidator(forms.redis_url)]
    # Further nodes of the Redis Cluster that `url` is a node of; some is the sign that it is one.
    cluster_nodes: tuple[Annotated[SecretStr, AfterValidator(forms.redis_url)], ...] = ()


class Http(Section):
    """Where `/live`, `/ready` and `/metrics` are served. Nobody is asked for a name: hence loopback."""

    listen: str = "127.0.0.1"
    port: Port = 9280


class Secrets(Section):
    """Fernet keys that seal what is secret in the database: the first one seals, all of them open."""

    keys: tuple[Annotated[SecretStr, AfterValidator(forms.fernet_key)], ...] = ()
    keys_file: SecretFile | None = None

    @model_validator(mode="after")
    def _some_keys(self) -> Self:
        forms.exactly_one("keys", self.keys or None, "keys_file", self.keys_file)
        if not self.ring:
            raise ValueError("keys_file holds no key")
        for key in self.ring:
            forms.fernet_key(SecretStr(key))
        return self

    @property
    def ring(self) -> tuple[str, ...]:
        """The keys, first the one that seals. A file has one on each line; `#` begins a comment."""
        if self.keys_file is None:
            return tuple(key.get_secret_value() for key in self.keys)
        lines = (line.strip() for line in self.keys_file.read_text().splitlines())
        return tuple(line for line in lines if line and not line.startswith("#"))


class Log(Section):
    """What is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Ingest(Section):
    """How the feed becomes state."""

    workers: int = Field(default=2, ge=1, le=LANES)  # commits under way at once; more than the database has cores idle
    batch: int = Field(
        default=512, ge=1, le=4096
    )  # events in one commit; beyond it throughput hardly grows and latency does
    queue: int = Field(default=2048, ge=16, le=65536)  # events that wait in memory: as many as the feed's window
    freshness_seconds: Seconds = 2.0  # a query waits so long for the feed ahead of it, then answers "wait"


class Conversations(Section):
    """What messages do to their conversation."""

    sending_reads: bool = False  # XEP-0490 §3: sending is not displaying
    encrypted_apart: bool = False  # OMEMO chats are conversations of their own, as Xabber's clients expect


class Bootstrap(Section):
    """How the server's archives become conversations: at the first contact, after a loss, and on command."""

    enabled: bool = True
    pages_per_second: float = Field(default=10.0, ge=0.1, le=1000)  # of 50 messages: about a tenth of a core
    at_once: int = Field(default=2, ge=1, le=16)  # archives
    days: int = Field(default=90, ge=1, le=36_500)  # as message_days of [retention]: what is older would go again
    messages: int = Field(default=10_000, ge=50, le=10_000_000)  # of an account; beyond it only the newer part
    room_messages: int = Field(default=50, ge=1, le=50)  # of a room that is met for the first time


class Calls(Section):
    """How long calls ring, and for whom."""

    ring_seconds: float = Field(default=60.0, ge=5, le=600)  # clients give up after 30 to 60
    fallback_seconds: float = Field(default=8.0, ge=1, le=60)  # a VoIP push unfetched so long is followed by an alert
    ring_unknown: bool = False  # strangers may not make a phone ring
    missed_counts: bool = False  # a missed call makes its conversation unread


class Push(Section):
    """When devices are woken, and how many pushes leave at once."""

    wake_interval_seconds: Seconds = 20.0  # at most one wake while the last is unfetched: a phone wakes for about 20 s
    coalesce_seconds: float = Field(default=1.0, ge=0, le=60)  # what comes within it is announced by one push
    repeat_seconds: tuple[Seconds, ...] = (60.0, 600.0)  # an unfetched wake is repeated then, to filtering apps
    muted_mentions: bool = False  # a mention wakes though its conversation is muted
    muted_calls: bool = False  # likewise a call
    max_devices: int = Field(default=5, ge=1, le=100)  # of an account, the oldest leaves: mod_cloud_notify's number
    reactions: bool = False  # a reaction to one's own message is no reason to take a phone out of the pocket
    sends_in_flight: int = Field(default=100, ge=1, le=1000)  # requests without an answer; APNs allows 1,000 streams
    # Of app servers that are not ours (XEP-0357), as mod_cloud_notify's push_notification_* and push_max_errors.
    app_servers: tuple[HostOrAny, ...] = ("*",)  # whom users may name: with Prosody and ejabberd, anybody
    publish_with_sender: bool = False
    publish_with_body: bool = False
    publish_important_body: str = Field(default="New Message!", max_length=255)
    publish_max_errors: int = Field(default=16, ge=1, le=1000)
    publish_failing_hours: float = Field(default=72.0, ge=0, le=720)  # an app server may be down over a weekend


class OtherServers(Section):
    """Whose users we serve besides those of the hosts whose feed we take: by their servers' publishes (XEP-0357)."""

    served: tuple[HostOrAny, ...] = ()  # a device costs rows and pushes
    publishers: tuple[Host, ...] = ()
    token_apps: tuple[str, ...] = ()  # a publish to a token needs no secret: who knows the token may wake the phone


class Retention(Section):
    """How long what is not in the server's archive is held."""

    messages: int = Field(default=5000, ge=100, le=1_000_000)  # a conversation's in the index: 0.3 kB each
    messages_at_least: int = Field(default=50, ge=1, le=10_000)  # of a quiet conversation, whatever their age
    message_days: int = Field(default=90, ge=1, le=36_500)
    changes: int = Field(default=1000, ge=50, le=1_000_000)  # a client gets at most 50 at once, then loads anew
    change_days: int = Field(default=30, ge=1, le=36_500)
    horizon_days: int = Field(default=30, ge=1, le=36_500)  # phones that were away for longer start over
    every_hours: float = Field(default=24.0, ge=0.1, le=720)

    @model_validator(mode="after")
    def _at_least_is_less(self) -> Self:
        if self.messages_at_least > self.messages:
            raise ValueError("messages_at_least is more than messages")
        return self


class ApnsApp(Section):
    """One app of the team."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]{1,64}$")]  # Siskin: tigase:messenger:apns:1
    bundle_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,155}$")]
    environment: Environment
    filtering: bool
    time_sensitive: bool = False
    server: Annotated[str, AfterValidator(forms.address)] | None = None
    ca_file: SecretFile | None = None
    certificate_file: SecretFile | None = None
    certificate_password: SecretStr | None = None
    certificate_password_file: SecretFile | None = None
    sound: str = Field(default="default", min_length=1, max_length=64)
    loc_message: str = Field(default="message.new", min_length=1, max_length=128)
    loc_call: str = Field(default="call.incoming", min_length=1, max_length=128)
    loc_missed: str = Field(default="call.missed", min_length=1, max_length=128)
    loc_update: str = Field(default="conversation.updated", min_length=1, max_length=128)
    loc_invited: str = Field(default="invitation.new", min_length=1, max_length=128)
    loc_subscription: str = Field(default="contact.request", min_length=1, max_length=128)
    loc_removed: str = Field(default="account.removed", min_length=1, max_length=128)
    sound_call: str = Field(default="default", min_length=1, max_length=64)
    badge: bool = False  # Apple then sees how many messages are unread

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.certificate_password is not None or self.certificate_password_file is not None:
            if self.certificate_file is None:
                raise ValueError("certificate_password needs certificate_file")
            forms.exactly_one(
                "certificate_password",
                self.certificate_password,
                "certificate_password_file",
                self.certificate_password_file,
            )
        return self

    @property
    def password(self) -> str | None:
        """Of the certificate's file, from wherever it is kept."""
        if self.certificate_password is not None:
            return self.certificate_password.get_secret_value()
        return self.certificate_password_file.read_text().strip() if self.certificate_password_file else None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to push to."""
        hosts = {Environment.PRODUCTION: "api.push.apple.com", Environment.SANDBOX: "api.sandbox.push.apple.com"}
        host, _, port = (self.server or f"{hosts[self.environment]}:443").rpartition(":")
        return host.strip("[]"), int(port)


class Apns(Section):
    """Apple's push service: the team's key, and its apps. An app with a certificate of its own needs no key."""

    team_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{10}$")] | None = None
    key_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{10}$")] | None = None
    key_file: SecretFile | None = None
    proxy: Annotated[SecretStr, AfterValidator(forms.proxy_url)] | None = None
    apps: Annotated[tuple[ApnsApp, ...], AfterValidator(forms.some)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({app.name for app in self.apps}) < len(self.apps):
            raise ValueError("apps: two apps bear the same name")
        return self

    @model_validator(mode="after")
    def _known_to_apple(self) -> Self:
        parts = {"team_id": self.team_id, "key_id": self.key_id, "key_file": self.key_file}
        missing = [name for name, value in parts.items() if value is None]
        if missing and len(missing) < len(parts):
            raise ValueError(f"{missing[0]} is missing: team_id, key_id and key_file belong together")
        if missing and (bare := [app.name for app in self.apps if app.certificate_file is None]):
            raise ValueError(f"app {bare[0]} has no certificate_file, and there is no team_id, key_id and key_file")
        return self


class Config(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter="__",
    )

    component: Component
    postgres: Postgres
    secrets: Secrets
    redis: Redis | None = None
    http: Http = Http()
    log: Log = Log()
    ingest: Ingest = Ingest()
    conversations: Conversations = Conversations()
    bootstrap: Bootstrap = Bootstrap()
    calls: Calls = Calls()
    push: Push = Push()
    other_servers: OtherServers = OtherServers()
    retention: Retention = Retention()
    apns: Apns | None = None

    @model_validator(mode="after")
    def _token_apps_are_apps(self) -> Self:
        if not {*self.other_servers.token_apps} <= {app.name for app in (self.apns.apps if self.apns else ())}:
            raise ValueError("other_servers.token_apps names an app that is not among apns.apps")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file; nothing else is looked at."""
        return env_settings, init_settings

    def warnings(self, path: Path) -> tuple[str, ...]:
        """What is no fault but should not stay: secrets that every user of the machine can read."""
        files = {"component.secret_file": self.component.secret_file, "secrets.keys_file": self.secrets.keys_file}
        if self.apns is not None:
            files["apns.key_file"] = self.apns.key_file
            for number, app in enumerate(self.apns.apps, 1):
                files[f"apns.apps.{number}.certificate_file"] = app.certificate_file
                files[f"apns.apps.{number}.certificate_password_file"] = app.certificate_password_file
        files["the configuration file"] = path
        return tuple(
            f"{field}: every user of this machine can read {file}; chmod o-r it"
            for field, file in files.items()
            if file is not None and file.stat().st_mode & 0o004
        )


def load(path: Path) -> Config:
    """Read and check the file and the environment. Raises `ConfigError` with every fault found."""
    try:
        written = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigError(path, [f"cannot be read: {why}"]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(path, [f"is not valid TOML: {error}"]) from None
    unknown = faults.unknown_variables(os.environ, PREFIX, Config)
    try:
        config = Config(**written)
    except ValidationError as error:
        raise ConfigError(path, [*unknown, *faults.explain(error, Config, os.environ, PREFIX)]) from None
    except SettingsError as error:
        raise ConfigError(path, [*unknown, faults.unparsed(error)]) from None
    if unknown:
        raise ConfigError(path, unknown)
    return config
