"""A Prosody of a test's own: started, killed, started again, on loopback ports of its own."""

import asyncio
import itertools
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from sync.sandbox import launch
from sync.sandbox.prosody import Option, prosody
from tests.ports import free_port
from tests.system.xmpp_client import XmppClient
from tests.system.xmpp_component import FeedComponent

ROOT = Path(__file__).parent.parent.parent
DOMAIN, COMPONENT, SECRET, PASSWORD = "localhost", "sync.localhost", "secret of the component", 'pass"word\\ü'
ROOMS, ELSEWHERE = (
    "conference.localhost",
    "elsewhere.localhost",
)  # rooms that the module covers, and rooms that it does not
SECONDS = 60  # for what must come, however busy the machine is
_ELSEWHERE = f"""
Component "{ELSEWHERE}" "muc"
  muc_room_locking = false
"""


class Prosody:
    """Accounts u0 … u199. `told`: what the test's component has acked so far, as a database would remember it."""

    def __init__(self, folder: Path, **options: Option) -> None:
        self.folder = folder
        self.outbox = folder / "data" / DOMAIN / "convsync_feed.d"
        self.told: dict[str, int] = {}
        self.told_of_rooms: dict[str, int] = {}
        self.c2s_port, self.component_port = free_port(), free_port()
        self.env: dict[str, str] = {}
        self._names = itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        self.part = prosody(
            folder,
            domain=DOMAIN,
            accounts=[(f"u{i}", PASSWORD) for i in range(200)],
            c2s_port=self.c2s_port,
            component_port=self.component_port,
            component_secret=SECRET,
            module_path=ROOT / "deploy" / "prosody",
            more_modules=("convsync_control", "register_ibr", "user_account_management"),
            more_paths=(Path(__file__).parent / "prosody",),
            options={"allow_registration": True, "registration_throttle_max": 100, **options},
            more_hosts=_ELSEWHERE,
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def spawn(self) -> None:
        with (self.folder / "stderr.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*launch.tied(), *self.part.argv],
                cwd=self.part.cwd,
                stdout=log,
                stderr=log,
                env=launch.environment({**self.part.env, **self.env}),
                restore_signals=False,  # a file that may grow no more is then an error for it and not its death
            )

    async def start(self) -> None:
        self.spawn()
        try:
            async with asyncio.timeout(SECONDS):
                while not await self.part.answers():  # noqa: ASYNC110 - a listening socket has no event to wait for
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise RuntimeError(self.log()[-3000:]) from None

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(SECONDS)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(SECONDS)

    def died(self) -> None:
        """Returns when it has, by itself."""
        assert self._process is not None
        self._process.wait(SECONDS)

    def resident(self) -> int:
        """Bytes of memory that it holds."""
        line = next(x for x in Path(f"/proc/{self.pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def processor_seconds(self) -> float:
        """Its own, so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def log(self) -> str:
        return (self.folder / "prosody.log").read_text(errors="replace")

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
        await feed.subscribe(self.told)
        await feed.caught_up()
        self.told |= feed.ack_all()
        feed.events.clear()
        feed.batches.clear()
        return feed

    async def rooms(self) -> FeedComponent:
        """As `feed`, of the host of rooms."""
        feed = await self.component(ROOMS)
        await feed.subscribe(self.told_of_rooms)
        await feed.caught_up()
        self.told_of_rooms |= feed.ack_all()
        feed.events.clear()
        feed.batches.clear()
        return feed

    async def control(self, client: XmppClient, what: str, *, host: str = DOMAIN, **attributes: str) -> None:
        """load, unload or reload a module (this one, unless named) in the running server; or `affiliate`."""
        given = "".join(f" {name}='{value}'" for name, value in ({"module": "convsync_feed"} | attributes).items())
        await client.iq("set", f"<control xmlns='urn:convsync:test' do='{what}' host='{host}'{given}/>", to=DOMAIN)


@asynccontextmanager
async def prosody_of_its_own(
    folder: Path, *, config: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None, **options: Option
) -> AsyncIterator[Prosody]:
    """For a test that kills it, damages it, or configures it. `config`: lines of its configuration → others."""
    prosody = Prosody(folder, **options)
    prosody.env |= env or {}
    for line, instead in (config or {}).items():
        text = (folder / "prosody.cfg.lua").read_text()
        assert line in text
        (folder / "prosody.cfg.lua").write_text(text.replace(line, instead))
    await prosody.start()
    try:
        yield prosody
    finally:
        prosody.kill()
