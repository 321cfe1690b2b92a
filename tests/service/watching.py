"""What the tests of live notices say and look at."""

from xml.etree.ElementTree import Element

from sync.model.delta import DeltaToken
from sync.protocol.names import CONVSYNC, clark
from tests.contract.samples import ANN
from tests.service.post import Post, answer


async def paging(post: Post, *, end: bool, wish: bool | None = None, reached: int = 100) -> None:
    low = None if end else 90
    token = DeltaToken(epoch=1, since=100 if end else 50, log=50, newest=0 if end else 100, low=low)
    await post.watchers.answered(ANN, "web", wish, answer(token, reached))


def told_changes(notice: Element) -> list[int]:
    return [int(one.get("version", "")) for one in notice.iter(clark(CONVSYNC, "change"))]
