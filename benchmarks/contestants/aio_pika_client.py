"""aio-pika, which confirms by default: each publish awaited, or (option `gather`) so many at once."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import aio_pika

from benchmarks.work import PREFETCH, Stopwatch, Work, body, say


def _message(number: int, data: bytes) -> aio_pika.Message:
    return aio_pika.Message(
        data,
        content_type="application/json",
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=f"{number:026d}",
        timestamp=int(time.time()),
        type="SEND_MESSAGE",
    )


def publish(work: Work) -> dict[str, Any]:
    """Time from the first publish to the last confirm; `mandatory` is aio-pika's default."""

    async def main() -> dict[str, float]:
        connection = await aio_pika.connect(work.url)
        async with connection:
            exchange = await (await connection.channel()).get_exchange(work.exchange)
            at_once = work.options.get("gather", 1)
            numbered = enumerate(work.bodies())
            watch = Stopwatch()
            if at_once == 1:
                for number, data in numbered:
                    await exchange.publish(_message(number, data), work.key)
            else:
                for start in range(0, work.count, at_once):
                    batch = [next(numbered) for _ in range(min(at_once, work.count - start))]
                    await asyncio.gather(*(exchange.publish(_message(number, data), work.key) for number, data in batch))
            return watch.read()

    return {**asyncio.run(main()), "confirmed": work.count}


def receive(work: Work) -> dict[str, Any]:
    """A consumer callback that awaits `message.ack()`."""

    async def main() -> dict[str, float]:
        connection = await aio_pika.connect(work.url)
        async with connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=PREFETCH)
            queue = await channel.get_queue(work.queue)
            seen = set()
            done = asyncio.Event()

            async def on_message(message: aio_pika.abc.AbstractIncomingMessage) -> None:
                seen.add(message.message_id)
                await message.ack()
                if len(seen) == work.count:
                    done.set()

            watch = Stopwatch()
            await queue.consume(on_message)
            await done.wait()
            await channel.set_qos(prefetch_count=PREFETCH)  # answered after the last ack
            return {**watch.read(), "received": len(seen)}

    return asyncio.run(main())


def pace(work: Work) -> dict[str, Any]:
    """A thread keeps the time and hands each message to the loop when it is due; nobody waits for the one before."""

    async def main() -> float:
        connection = await aio_pika.connect(work.url)
        async with connection:
            exchange = await (await connection.channel()).get_exchange(work.exchange)
            loop = asyncio.get_running_loop()
            tasks: list[asyncio.Task[Any]] = []
            all_started = asyncio.Event()
            began = time.monotonic() + 0.1

            def put(number: int) -> None:
                tasks.append(loop.create_task(exchange.publish(_message(number, body(number, work.size)), work.key)))
                if number == work.count - 1:
                    all_started.set()

            def keep_time() -> None:
                for number in range(work.count):
                    left = began + number / work.rate - time.monotonic()
                    if left > 0:
                        time.sleep(left)
                    loop.call_soon_threadsafe(put, number)

            threading.Thread(target=keep_time, daemon=True).start()
            await all_started.wait()
            await asyncio.gather(*tasks)
            return began

    return {"began": asyncio.run(main()), "confirmed": work.count}


def watch(work: Work) -> dict[str, Any]:
    """When each message came, in the callback."""

    async def main() -> list[float]:
        connection = await aio_pika.connect(work.url)
        async with connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=PREFETCH)
            queue = await channel.get_queue(work.queue)
            arrived = [0.0] * work.count
            missing = work.count
            done = asyncio.Event()

            async def on_message(message: aio_pika.abc.AbstractIncomingMessage) -> None:
                nonlocal missing
                arrived[int(message.body[:8])] = time.monotonic()
                await message.ack()
                missing -= 1
                if not missing:
                    done.set()

            await queue.consume(on_message)
            say({"ready": True})
            await done.wait()
            return arrived

    return {"arrived": asyncio.run(main())}


def recover(work: Work) -> dict[str, Any]:
    """When the message that was never acked comes again through `connect_robust`, with its defaults."""

    async def main() -> float:
        connection = await aio_pika.connect_robust(work.url)
        async with connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=1)
            queue = await channel.get_queue(work.queue)
            times: list[float] = []
            done = asyncio.Event()

            async def on_message(_: aio_pika.abc.AbstractIncomingMessage) -> None:
                times.append(time.monotonic())
                if len(times) == 1:
                    say({"ready": True})
                else:
                    done.set()

            await queue.consume(on_message)
            await done.wait()
            return times[1]

    return {"first": asyncio.run(main())}
