"""An ejabberd of a test's own: started, killed, started again, on loopback ports of its own.

It offers what `prosody_server.Prosody` does, so that a test of the one reads like a test of the other. With `node` it
is an Erlang node with distribution, on an epmd of its own: what a cluster is made of.
"""

import asyncio
import itertools
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sync.sandbox import launch
from sync.sandbox.ejabberd import BEAMS, CONFIGURATION, ejabberd, find_ejabberd
from tests.ports import free_port
from tests.system.prosody_server import COMPONENT, DOMAIN, ELSEWHERE, PASSWORD, ROOMS, SECRET
from tests.system.xmpp_client import XmppClient
from tests.system.xmpp_component import FeedComponent

ROOT = Path(__file__).parent.parent.parent
MODULE = ROOT / "deploy" / "ejabberd" / "mod_convsync_feed"
CONTROL = Path(__file__).parent / "ejabberd"
ABROAD = "abroad.localhost"  # a VirtualHost without the module; ELSEWHERE is its host of rooms
SECONDS = 60  # for what must come, on whatever machine

Constants = Mapping[tuple[str, str], int]
# How long the module waits for its own parts, and how far back a killed server looks, are of a machine that does its
# work in time. A test that stops a part on purpose must be done before the module gives that part up, however slow
# the machine: times are longer here. By (source file, constant).
UNHURRIED: Constants = {
    ("host", "PATIENCE"): 60_000,
    ("queries", "PATIENCE"): 5_000,
    ("outbox", "MARK"): 600_000_000,
    ("told", "KEPT"): 3_600_000_000,
    ("sessions", "MARGIN"): 60_000_000,
}


class Ejabberd:
    """Accounts u0 … u199. `told`: what the test's component has acked so far, as a database would remember it.

    `options` are the module's; `modules` are more modules of the users' host, or other options of those it has;
    `constants` are put into the module's source.
    """

    def __init__(
        self,
        folder: Path,
        *,
        modules: dict[str, dict[str, Any]] | None = None,
        node: str = "",
        epmd: int = 0,
        cookie: str = "cookie",
        constants: Constants = UNHURRIED,
        **options: object,
    ) -> None:
        self.folder = folder
        self.told: dict[str, int] = {}
        self.told_of_rooms: dict[str, int] = {}
        self.c2s_port, self.component_port = free_port(), free_port()
        self.node, self._cookie = node, cookie
        self._names = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        self.part = ejabberd(
            folder,
            domain=DOMAIN,
            accounts=[(f"u{i}", PASSWORD) for i in range(200)],
            c2s_port=self.c2s_port,
            component_port=self.component_port,
            component_secret=SECRET,
            module_path=_with(constants, folder / "source"),
            options=options,
        )
        _compile(CONTROL / "mod_convsync_control.erl", folder / BEAMS)
        self._more(modules or {})
        self._argv, self._env = list(self.part.argv), dict(self.part.env)
        if node:
            loopback = ["-kernel", "inet_dist_use_interface", "{127,0,0,1}"]
            self._argv[1:1] = ["-sname", node, "-setcookie", cookie, *loopback]
            self._env |= {"ERL_EPMD_PORT": str(epmd), "ERL_EPMD_ADDRESS": "127.0.0.1"}

    def _more(self, modules: dict[str, dict[str, Any]]) -> None:
        file = self.folder / CONFIGURATION
        settings = json.loads(file.read_text())
        settings["registration_timeout"] = "infinity"
        settings["hosts"].append(ABROAD)
        elsewhere = {"mod_muc": {"hosts": [ELSEWHERE], "access_create": "all"}, "mod_disco": {}}
        settings["host_config"] = {ABROAD: {"modules": elsewhere}}
        here = settings["modules"]
        here["mod_muc"]["db_type"] = "mnesia"  # a cluster's nodes share its rooms; the sandbox has them in SQL
        for name, more in ({"mod_register": {"ip_access": "all"}, "mod_convsync_control": {}} | modules).items():
            here[name] = here.get(name, {}) | more
        file.write_text(json.dumps(settings, indent=1))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def spawn(self) -> None:
        with (self.folder / "stderr.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*launch.tied(), *self._argv],
                cwd=self.part.cwd,
                stdout=log,
                stderr=log,
                env=launch.environment(self._env),
            )

    async def start(self) -> None:
        self.spawn()
        await self.up()

    async def up(self) -> None:
        """It listens; what it said meanwhile where it does not."""
        try:
            async with asyncio.timeout(SECONDS):
                while not await self.part.answers():  # noqa: ASYNC110 - a listening socket has no event to wait for
                    await asyncio.sleep(0.02)
        except TimeoutError:
            said = (self.folder / "stderr.log").read_text(errors="replace")
            raise RuntimeError(f"{said[-1000:]}\n{self.log()[-3000:]}") from None

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(SECONDS)

    def wait(self) -> int:
        """Until it has ended by itself."""
        assert self._process is not None
        return self._process.wait(SECONDS)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(SECONDS)

    def call(self, module: str, function: str, arguments: str = "[]") -> str:
        """Calls a function in the running node, which must have a name; returns what it printed of the result."""
        installation = find_ejabberd()
        script = f"io:format(\"~p\", [rpc:call('{self.node}', {module}, {function}, {arguments}, 60000)]), halt()."
        name = f"call{next(self._names)}{self.node}"
        options = ["-sname", name, "-setcookie", self._cookie, "-hidden", "-noinput", "-eval", script]
        done = subprocess.run(
            [str(installation.erl), *options],
            env=launch.environment(self._env),
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )
        return done.stdout

    def log(self) -> str:
        path = self.folder / "logs" / "ejabberd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def logged(self, text: str) -> bool:
        """The log has the text; the server writes it some seconds late."""
        for _ in range(10 * SECONDS):
            if text in self.log():
                return True
            await asyncio.sleep(0.1)
        return False

    def name(self) -> str:
        """An account that no other test uses."""
        return f"u{next(self._names)}@{DOMAIN}"

    async def client(
        self,
        jid: str,
        *,
        presence: bool = True,
        carbons: bool = False,
        sm: bool = False,
        resume: XmppClient | None = None,
    ) -> XmppClient:
        return await XmppClient.connect(
            jid, PASSWORD, self.c2s_port, presence=presence, carbons=carbons, sm=sm, resume=resume
        )

    async def component(self, host: str = DOMAIN) -> FeedComponent:
        """Connected, not subscribed."""
        return await FeedComponent.connect(COMPONENT, SECRET, self.component_port, host=host)

    async def feed(self) -> FeedComponent:
        """Subscribed with what was acked so far, everything older fetched and acked, so that a test sees its own."""
        feed = await self.component()
        self.told |= await _caught_up(feed, self.told)
        return feed

    async def rooms(self) -> FeedComponent:
        """As `feed`, of the host of rooms."""
        feed = await self.component(ROOMS)
        self.told_of_rooms |= await _caught_up(feed, self.told_of_rooms)
        return feed

    async def control(self, client: XmppClient, what: str, *, host: str = DOMAIN, **attributes: str) -> None:
        """load, unload or reload a module (this one, unless named) in the running server, and more: see the module."""
        given = "".join(f" {name}='{value}'" for name, value in ({"module": "convsync_feed"} | attributes).items())
        await client.iq("set", f"<control xmlns='urn:convsync:test' do='{what}' host='{host}'{given}/>", to=DOMAIN)

    async def status(self, client: XmppClient, host: str = DOMAIN) -> dict[str, int]:
        """What the admin command says of a host's feed."""
        answer = await client.iq("set", f"<control xmlns='urn:convsync:test' do='status' host='{host}'/>", to=DOMAIN)
        return {name: int(value) for name, value in answer[0].attrib.items()}

    def configure(self, module: str, **options: object) -> None:
        """Changes the configuration file; see `reload-config`."""
        file = self.folder / CONFIGURATION
        settings = json.loads(file.read_text())
        settings["modules"][module] |= options
        file.write_text(json.dumps(settings, indent=1))


async def _caught_up(feed: FeedComponent, told: dict[str, int]) -> dict[str, int]:
    await feed.subscribe(told)
    await feed.caught_up()
    acked = feed.ack_all()
    feed.events.clear()
    feed.batches.clear()
    return acked


def _with(constants: Constants, folder: Path) -> Path:
    """A folder with the module in it, these constants changed."""
    copy = folder / MODULE.name
    shutil.copytree(MODULE, copy)
    for (file, name), value in constants.items():
        path = copy / "src" / f"mod_convsync_feed_{file}.erl"
        text, many = re.subn(rf"(?m)^-define\({name}, \d+\)", f"-define({name}, {value})", path.read_text())
        assert many == 1, (file, name)
        path.write_text(text)
    return folder


def _compile(source: Path, target: Path) -> None:
    installation = find_ejabberd()
    includes = [word for folder in installation.includes for word in ("-I", str(folder))]
    environment = os.environ | {"ERL_LIBS": str(installation.libraries)}
    subprocess.run(
        [str(installation.erlc), *includes, "-o", str(target), str(source)],
        check=True,
        timeout=4 * SECONDS,
        env=environment,
    )


@asynccontextmanager
async def ejabberd_of_its_own(
    folder: Path, *, modules: dict[str, dict[str, Any]] | None = None, **options: Any
) -> AsyncIterator[Ejabberd]:
    """For a test that kills it, damages it, or configures it."""
    server = Ejabberd(folder, modules=modules, **options)
    await server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def epmd_of_its_own() -> Iterator[int]:
    """Its port. Nodes of a cluster find each other by it; it listens on loopback only."""
    port = free_port()
    epmd = shutil.which("epmd") or "/usr/bin/epmd"
    process = subprocess.Popen([*launch.tied(), epmd, "-port", str(port), "-address", "127.0.0.1"])
    try:
        yield port
    finally:
        process.kill()
        process.wait(SECONDS)
