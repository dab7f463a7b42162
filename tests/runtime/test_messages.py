"""Messages go out in the background, to a receiver that really listens, refuses, is not there, or never answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cutover.adapters.receivers import DeliveryReport, urls_of
from cutover.messaging import Delivery, Message
from cutover.runtime import messages
from cutover.runtime.messages import Messages
from cutover.settings.settings import NotifyProvider
from support.fakes.message_receiver import Receiver, nobody, receiver, written

Ended = list[tuple[str, bool]]


@pytest.fixture
def chat() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "_PAUSES", (0.01, 0.02))


@asynccontextmanager
async def sending(limit: float = 10.0, **files: Path) -> AsyncIterator[tuple[Messages, Ended]]:
    ended: Ended = []
    providers = {name: NotifyProvider(url_file=file, timeout=limit) for name, file in files.items()}
    made = Messages(providers, lambda name, delivered: ended.append((name, delivered)))
    task = asyncio.create_task(made.run())
    yield made, ended
    task.cancel()


async def over(*deliveries: Delivery) -> list[str]:
    """The problem of each, once all have ended."""

    async def wait(reached: Callable[[], bool]) -> None:
        while not reached():
            await asyncio.sleep(0.01)

    await asyncio.wait_for(wait(lambda: all(delivery.over for delivery in deliveries)), 20)
    return [delivery.error for delivery in deliveries]


async def test_they_come_in_order(chat: Receiver, tmp_path: Path) -> None:
    async with sending(chat=written(tmp_path / "chat", chat.url)) as (sender, ended):
        posted = [sender.post("chat", Message(f"t{number}", "*text* <b> {x}"), 30) for number in range(20)]
        assert not any(delivery.over for delivery in posted), "it never blocks"
        assert await over(*posted) == [""] * 20
    assert chat.came == [(f"t{number}", "*text* <b> {x}") for number in range(20)]
    assert ended == [("chat", True)] * 20


async def test_a_receiver_of_html_gets_text_and_no_markup_of_a_plan(chat: Receiver, tmp_path: Path) -> None:
    file = written(tmp_path / "chat", f"{chat.url}&format=html")
    async with sending(chat=file) as (sender, _):
        assert await over(sender.post("chat", Message("t", "<a href='//x'>log in</a>"), 30)) == [""]
    ((_, text),) = chat.came
    assert "<a" not in text
    assert "&lt;a" in text


@pytest.mark.parametrize(("query", "problem"), [("", "1 of 1 receivers did not accept it"), ("&redirect=yes", "")])
async def test_a_redirect_is_followed_only_where_the_url_says_so(
    chat: Receiver, tmp_path: Path, query: str, problem: str
) -> None:
    with receiver() as other:
        chat.code, chat.elsewhere = 307, f"http://127.0.0.1:{other.port}/"
        file = written(tmp_path / "chat", chat.url + query)
        async with sending(chat=file) as (sender, _):
            assert await over(sender.post("chat", Message("t", "m"), 30)) == [problem]
        assert other.came == ([] if problem else [("t", "m")])


@pytest.mark.parametrize(("code", "tries"), [(500, 3), (404, 3)])
async def test_one_that_refuses_is_tried_a_few_times(chat: Receiver, tmp_path: Path, code: int, tries: int) -> None:
    chat.code = code
    async with sending(chat=written(tmp_path / "chat", chat.url)) as (sender, ended):
        assert await over(sender.post("chat", Message("t", "m"), 30)) == ["1 of 1 receivers did not accept it"]
        assert len(chat.came) == tries
        chat.code = 200
        assert await over(sender.post("chat", Message("t2", "m"), 30)) == [""]
    assert ended == [("chat", False), ("chat", True)]


async def test_only_those_that_did_not_take_it_are_tried_again(chat: Receiver, tmp_path: Path) -> None:
    async with sending(chat=written(tmp_path / "chat", nobody(), chat.url, "nothing://x")) as (sender, _):
        (problem,) = await over(sender.post("chat", Message("t", "m"), 30))
    assert problem == "1 of its URLs are not known to apprise and 1 of 2 receivers did not accept it"
    assert chat.came == [("t", "m")]


async def test_one_that_never_answers_delays_no_other(chat: Receiver, tmp_path: Path) -> None:
    with receiver() as silent:
        silent.code = 0
        files = {"silent": written(tmp_path / "silent", silent.url), "chat": written(tmp_path / "chat", chat.url)}
        async with sending(limit=0.2, **files) as (sender, ended):
            before = threading.active_count()
            lost = [sender.post("silent", Message("t", "m"), 0.5) for _ in range(50)]
            assert await over(sender.post("chat", Message("t", "m"), 30)) == [""]
            problems = await over(*lost)
            assert "no answer within 0.2s" in problems[0]
            # A pause of the machine between two posts costs one more attempt: their expiry is no longer the same.
            assert problems.count("it expired while it was queued") >= 40
            assert threading.active_count() - before <= 4, "one thread of ours, one of the receiver a request"
    assert ended.count(("silent", False)) == 50


async def test_what_there_is_no_room_for_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "_QUEUE_SIZE", 3)
    ended: Ended = []
    sender = Messages({"chat": NotifyProvider(url_file=tmp_path / "none")}, lambda *what: ended.append(what))
    posted = [sender.post("chat", Message("t", "m"), 30) for _ in range(5)]
    assert [delivery.error for delivery in posted if delivery.over] == ["too many messages are queued for it"] * 2
    assert ended == [("chat", False)] * 2
    assert sender.post("pager", Message("t", "m"), 30).error == "no such provider is configured"


async def test_what_was_posted_under_a_key_is_not_sent_again_while_it_is_remembered(
    chat: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(messages, "_REMEMBERED_KEYS", 2)
    async with sending(chat=written(tmp_path / "chat", chat.url)) as (sender, _):
        assert sender.delivery("a") is None
        first = sender.post("chat", Message("a", "m"), 30, "a")
        assert sender.post("chat", Message("a", "m"), 30, "a") is first
        assert await over(first) == [""]
        assert sender.post("chat", Message("a", "m"), 30, "a") is first is sender.delivery("a")
        await over(*(sender.post("chat", Message(key, "m"), 30, key) for key in ("b", "c")))
        assert sender.delivery("a") is None
        assert sender.delivery("b") is not None
        assert await over(sender.post("chat", Message("a", "m"), 30, "a"), sender.post("chat", Message("d", "m"), 30))
    assert [title for title, _ in chat.came] == ["a", "b", "c", "a", "d"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "its URL file cannot be read"),
        (b"\xff\xfe", "its URL file cannot be read"),
        (b"# nothing\n\n", "its URL file contains no URL"),
        (b"hello there\n", "1 of its URLs are not known to apprise"),
    ],
)
async def test_a_file_that_is_of_no_use(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "chat"
    if content is not None:
        file.write_bytes(content)
    async with sending(chat=file) as (sender, _):
        assert await over(sender.post("chat", Message("t", "m"), 30)) == [says]


async def test_a_secret_that_was_changed_counts_at_once(chat: Receiver, tmp_path: Path) -> None:
    file = written(tmp_path / "chat", nobody())
    async with sending(chat=file) as (sender, _):
        assert await over(sender.post("chat", Message("t", "m"), 30)) == ["1 of 1 receivers did not accept it"]
        written(file, chat.url)
        assert await over(sender.post("chat", Message("t", "m"), 30)) == [""]


async def test_no_url_gets_into_a_log(
    chat: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    chat.code = 401
    file = written(tmp_path / "chat", chat.url, "slack://s3cret/s3cret", "s3cret://s3cret")
    with caplog.at_level("INFO"):
        async with sending(chat=file) as (sender, _):
            (problem,) = await over(sender.post("chat", Message("t", "m"), 30))
    assert "a message was not delivered" in caplog.text
    assert "s3cret" not in caplog.text + problem + "".join(str(record.__dict__) for record in caplog.records)
    assert "s3cret" not in "".join(capfd.readouterr())


async def test_at_the_end_what_waits_is_tried_once(chat: Receiver, tmp_path: Path) -> None:
    sender = Messages({"chat": NotifyProvider(url_file=written(tmp_path / "chat", chat.url))}, lambda *_: None)
    task = asyncio.create_task(sender.run())
    posted = [sender.post("chat", Message(f"t{number}", "m"), 30) for number in range(4)]
    await asyncio.sleep(0)
    task.cancel()
    await sender.flush()
    assert [title for title, _ in chat.came] == ["t0", "t1", "t2", "t3"]
    assert posted[-1].over


async def test_the_end_does_not_wait_for_one_that_never_answers(chat: Receiver, tmp_path: Path) -> None:
    chat.code = 0
    sender = Messages({"chat": NotifyProvider(url_file=written(tmp_path / "chat", chat.url))}, lambda *_: None)
    sender.post("chat", Message("t", "m"), 30)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await sender.flush()


def test_urls() -> None:
    assert urls_of("# a\n\n  json://x  \nslack://y\n") == ("json://x", "slack://y")


async def test_a_receiver_that_accepts_late_gets_no_second_message(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The attempt times out, its thread continues, and what comes of that counts."""
    came: list[tuple[str, ...]] = []
    answers = iter([DeliveryReport(("slow",), "one did not take it"), DeliveryReport()])
    proceed = threading.Event()

    def deliver(_: Path, __: Message, undelivered: tuple[str, ...] = ()) -> DeliveryReport:
        came.append(undelivered)
        proceed.wait(10)
        return next(answers)

    monkeypatch.setattr(messages, "deliver", deliver)
    async with sending(limit=0.05, chat=tmp_path / "chat") as (sender, ended):
        delivery = sender.post("chat", Message("t", "m"), 30)
        await asyncio.sleep(0.06)  # the first try is over, its thread is not
        proceed.set()
        assert await over(delivery) == [""]
    assert came == [(), ("slow",)]
    assert ended == [("chat", True)]


async def test_a_message_between_two_tries_is_tried_once_more_at_the_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(messages, "_PAUSES", (60.0,))
    answers = iter([DeliveryReport(("url",), "refused"), DeliveryReport()])
    tried = asyncio.Event()
    loop = asyncio.get_running_loop()

    def deliver(*_: object) -> DeliveryReport:
        loop.call_soon_threadsafe(tried.set)
        return next(answers)

    monkeypatch.setattr(messages, "deliver", deliver)
    async with sending(chat=tmp_path / "chat") as (sender, ended):
        delivery = sender.post("chat", Message("t", "m"), 600)
        await asyncio.wait_for(tried.wait(), 10)
        await asyncio.sleep(0.05)
    await sender.flush()
    assert delivery.over
    assert ended == [("chat", True)]
