"""The configuration in the words of the rules and the service: they are handed values, not settings."""

from datetime import timedelta

from sync.adapters.zones import zone
from sync.config import ApnsApp, Config
from sync.model.device import Route
from sync.model.query import App
from sync.ports import Retention
from sync.rules.fold import Policies
from sync.rules.payloads import Wording
from sync.rules.publish_budget import PublishPolicy
from sync.rules.publishes import Terms
from sync.rules.view import CallPolicy, Conduct
from sync.rules.wishes import WakePolicy
from sync.service.archives import Pace


def policies(config: Config, *, were_apart: bool = False) -> Policies:
    """The rules as configured. `were_apart`: there are encrypted chats apart from plain ones already."""
    filtering = frozenset(app.name for app in config.apns.apps if app.filtering) if config.apns else frozenset()
    return Policies(
        conduct=Conduct(
            calls=CallPolicy(
                ring=timedelta(seconds=config.calls.ring_seconds),
                fallback=timedelta(seconds=config.calls.fallback_seconds),
                missed_counts=config.calls.missed_counts,
            ),
            sending_reads=config.conversations.sending_reads,
            encrypted_apart=config.conversations.encrypted_apart,
            were_apart=were_apart,
        ),
        wakes=WakePolicy(
            coalesce=timedelta(seconds=config.push.coalesce_seconds),
            interval=timedelta(seconds=config.push.wake_interval_seconds),
            repeats=tuple(timedelta(seconds=seconds) for seconds in config.push.repeat_seconds),
            ring_unknown=config.calls.ring_unknown,
            muted_mentions=config.push.muted_mentions,
            muted_calls=config.push.muted_calls,
            reactions=config.push.reactions,
            filtering_apps=filtering,
            zones=zone,
        ),
        publish=publish_policy(config),
    )


def publish_policy(config: Config) -> PublishPolicy:
    """What app servers of others are told, and how long they may fail."""
    return PublishPolicy(
        with_sender=config.push.publish_with_sender,
        with_body=config.push.publish_with_body,
        important_body=config.push.publish_important_body or None,
        max_errors=config.push.publish_max_errors,
        patience=timedelta(hours=config.push.publish_failing_hours),
    )


def terms(config: Config) -> Terms:
    """Whose publishes are taken."""
    return Terms(
        fed=frozenset(config.component.hosts),
        served=frozenset(config.other_servers.served),
        publishers=frozenset(config.other_servers.publishers),
        apps=frozenset(apps(config)),
    )


def token_apps(config: Config) -> dict[str, App]:
    """The apps, by name, whose tokens may be published to."""
    return {name: app for name, app in apps(config).items() if name in config.other_servers.token_apps}


def retention(config: Config) -> Retention:
    """How much is kept."""
    keep = config.retention
    return Retention(
        messages=keep.messages,
        messages_at_least=keep.messages_at_least,
        message_age=timedelta(days=keep.message_days),
        changes=keep.changes,
        change_age=timedelta(days=keep.change_days),
        horizon=timedelta(days=keep.horizon_days),
        every=timedelta(hours=keep.every_hours),
    )


def pace(config: Config) -> Pace:
    """How archives are read."""
    read = config.bootstrap
    return Pace(
        enabled=read.enabled,
        pages_per_second=read.pages_per_second,
        at_once=read.at_once,
        window=timedelta(days=read.days),
        messages=read.messages,
        room_messages=read.room_messages,
        horizon=timedelta(days=config.retention.horizon_days),
    )


def app_of(settings: ApnsApp) -> App:
    """An app as the service knows it."""
    return App(
        name=settings.name,
        bundle_id=settings.bundle_id,
        environment=settings.environment,
        filtering=settings.filtering,
        time_sensitive=settings.time_sensitive,
    )


def wording_of(settings: ApnsApp) -> Wording:
    """An app's words."""
    return Wording(
        message=settings.loc_message,
        call=settings.loc_call,
        missed=settings.loc_missed,
        update=settings.loc_update,
        invited=settings.loc_invited,
        subscription=settings.loc_subscription,
        removed=settings.loc_removed,
        ring=settings.sound_call,
        badge=settings.badge,
        sound=settings.sound,
    )


def apps(config: Config) -> dict[str, App]:
    """The apps by name."""
    return {app.name: app_of(app) for app in config.apns.apps} if config.apns else {}


def keys(config: Config) -> dict[str, str]:
    """What each queue's pushes are known by: the team's key, or a certificate of the app's own."""
    if config.apns is None:
        return {}
    key = f"{config.apns.team_id}/{config.apns.key_id}"
    return {f"{Route.APNS}:{app.name}": app.name if app.certificate_file else key for app in config.apns.apps}


def wordings(config: Config) -> dict[str, Wording]:
    """The apps' words by name."""
    return {app.name: wording_of(app) for app in config.apns.apps} if config.apns else {}
