"""LangChain with OpenAI: a chain's calls are scheduled, sync and async.

Start a provider in another terminal: penstock mock
"""

import asyncio
import os

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

import penstock

URL = os.environ.get("PENSTOCK_EXAMPLE_URL", "http://127.0.0.1:8001")
model = ChatOpenAI(
    model="mock",
    base_url=f"{URL}/v1",
    api_key="any",
    max_completion_tokens=40,
    http_client=penstock.client(),
    http_async_client=penstock.async_client(),
)
chain = ChatPromptTemplate.from_template("One sentence on {topic}.") | model | StrOutputParser()
TOPICS = [{"topic": topic} for topic in ("water", "mills", "gates", "wheels", "corn", "flour")]


async def main() -> None:
    """Run the chain for all topics, in the background class."""
    with penstock.request(class_="batch", tenant="encyclopedia"):
        answers = await chain.abatch(TOPICS)
    print(f"{len(answers)} answers; the first: {answers[0][:50]}...")
    print(f"and one by a sync call: {chain.invoke(TOPICS[0])[:50]}...")


if __name__ == "__main__":
    asyncio.run(main())
