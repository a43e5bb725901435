"""Texts as vectors over HTTP, those that come together in one pass: uvicorn examples.serve_embeddings:app

Needs fastapi and uvicorn; started as a script, it asks itself and leaves.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import torch
from fastapi import Body, FastAPI

from mmha.models import bert
from mmha.models.bert.embedding import embed

MOST, passes = 64, list[int]()  # texts of a pass, or a few more; how many each had


async def work(queue: asyncio.Queue[tuple[list[str], asyncio.Future[torch.Tensor]]]) -> None:
    """Answer all that waits in one pass, for ever: while the model computes, the next ones gather."""
    loaded = bert.load()
    while True:
        waiting = [await queue.get()]
        while not queue.empty() and sum(len(texts) for texts, _ in waiting) < MOST:
            waiting.append(queue.get_nowait())
        found = (await asyncio.to_thread(embed, *loaded, [text for texts, _ in waiting for text in texts])).vectors
        passes.append(len(found))
        for (_, future), vectors in zip(waiting, found.split([len(texts) for texts, _ in waiting]), strict=True):
            future.set_result(vectors)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.queue = asyncio.Queue()
    app.state.worker = asyncio.create_task(work(app.state.queue))
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/embed")
async def answer(texts: Annotated[list[str], Body(embed=True, min_length=1, max_length=MOST)]) -> list[list[float]]:
    app.state.queue.put_nowait((texts, future := asyncio.get_running_loop().create_future()))
    return (await future).tolist()


async def main() -> None:
    texts = ["a cat sat on the mat", "the jury said", "", "it was late in the night", "he had no money"] * 4
    async with lifespan(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        answers = await asyncio.gather(*(client.post("/embed", json={"texts": [text]}) for text in texts))
    apart = torch.tensor([answer.json()[0] for answer in answers]) - embed(*bert.load(), texts).vectors
    print(f"{len(texts)} questions in passes of {passes} texts; from one pass they differ by {apart.abs().max():.0e}")


if __name__ == "__main__":
    asyncio.run(main())
