"""What lives at one upstream is asked for there, and a 404 for an id blames nobody."""

import concurrent.futures
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.proxy.keeper import Keeper, keeper
from tests.proxy.sidecars import SidecarThread, call, sidecar
from tests.proxy.test_browsers import WITH_TOKEN
from tests.proxy.test_reload import FromFile


@pytest.fixture
def two() -> Iterator[tuple[Keeper, Keeper]]:
    with keeper("a") as a, keeper("b") as b:
        yield a, b


def in_front_of_two(two: tuple[Keeper, ...], more: str = "") -> str:
    upstreams = "".join(
        f'[[upstreams]]\nname = "{each.name}"\nbase_url = "{each.url}/v1"\nauth = "none"\n{more}\n'
        for each in two
    )
    capacity = '[scheduler.capacity]\nkind = "fixed"\nwindow = 2\n'
    return f"[server]\nport = 0\n[admin]\nport = 0\n{capacity}{upstreams}"


@pytest.fixture
def proxy(two: tuple[Keeper, Keeper]) -> Iterator[SidecarThread]:
    with sidecar(in_front_of_two(two)) as running:
        yield running


def client_of(proxy: SidecarThread) -> openai.OpenAI:
    return openai.OpenAI(base_url=proxy.url + "/v1", api_key="k", max_retries=0)


def unblamed(proxy: SidecarThread) -> bool:
    state = proxy.snapshot()
    return all(not each.pauses for each in state.upstreams.values())


def test_72_of_72_later_turns_find_their_conversation(
    proxy: SidecarThread, two: tuple[Keeper, Keeper]
) -> None:
    client = client_of(proxy)

    def talk(_: int) -> int:
        turn = client.responses.create(model="m", input="first")
        for _ in range(6):
            turn = client.responses.create(model="m", input="go on", previous_response_id=turn.id)
        return 6

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(talk, range(12))) == 72

    assert all(each.kept for each in two), "both have had conversations"
    assert not [status for each in two for status in each.targets if "GET" in status]
    assert unblamed(proxy)


def test_an_unknown_id_is_asked_for_at_each_and_then_known(
    proxy: SidecarThread, two: tuple[Keeper, Keeper]
) -> None:
    """As after a restart of the sidecar."""
    for each in two:
        each.kept[f"resp-{each.name}-old"] = b""
    client = client_of(proxy)

    for name in ("a", "b"):
        turn = client.responses.create(
            model="m", input="x", previous_response_id=f"resp-{name}-old"
        )
        assert turn.id.startswith(f"resp-{name}")
        assert client.responses.retrieve(f"resp-{name}-old").id == f"resp-{name}-old"

    assert unblamed(proxy)


def test_what_nobody_has_is_answered_as_the_provider_would(
    proxy: SidecarThread, two: tuple[Keeper, Keeper]
) -> None:
    client = client_of(proxy)
    with pytest.raises(openai.BadRequestError, match="resp-x not found"):
        client.responses.create(model="m", input="x", previous_response_id="resp-x")
    with pytest.raises(openai.NotFoundError, match="No such object: resp-x"):
        client.responses.retrieve("resp-x")

    assert [len(each.asked) for each in two] == [2, 2]
    assert unblamed(proxy)
    for _ in range(4):
        client.responses.create(model="m", input="first")


def test_files_are_streamed_up_and_used_where_they_are(
    proxy: SidecarThread, two: tuple[Keeper, Keeper]
) -> None:
    client = client_of(proxy)
    large = bytes(40 << 20)  # more than max_body_bytes: it is not held
    file = client.files.create(file=("a.bin", large), purpose="user_data")
    ask: list[openai.types.responses.ResponseInputItemParam] = [
        {"role": "user", "content": [{"type": "input_file", "file_id": file.id}]}
    ]
    for _ in range(6):
        assert client.responses.create(model="m", input=ask).id.startswith("resp-a")
    assert client.files.delete(file.id).deleted

    first, second = two
    assert large in first.asked[0][3]
    assert second.asked == []


def test_an_upload_goes_to_the_next_where_the_first_cannot_be_reached(
    two: tuple[Keeper, Keeper],
) -> None:
    toml = in_front_of_two(two).replace(two[0].url, "http://127.0.0.1:9")
    with sidecar(toml) as proxy:
        file = client_of(proxy).files.create(file=("a.bin", b"x" * 100), purpose="user_data")

    assert file.id.startswith("file-b")


def test_a_conversation_stays_where_it_was_made(
    proxy: SidecarThread, two: tuple[Keeper, Keeper]
) -> None:
    client = client_of(proxy)
    conversation = client.conversations.create()
    for _ in range(4):
        client.responses.create(model="m", input="x", conversation=conversation.id)
    assert client.conversations.retrieve(conversation.id).id == conversation.id

    assert two[1].asked == []


def test_a_drain_waits_for_what_is_relayed(
    proxy: SidecarThread, two: tuple[Keeper, Keeper]
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def slowly(*_: object) -> tuple[int, object]:
        asked.set()
        return 200, {"waited": go_on.wait(20)}

    two[0].answer = slowly  # type: ignore[method-assign, assignment]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        reply = pool.submit(call, proxy.port, "/v1/files", method="GET", body=None)
        assert asked.wait(20)
        assert proxy.running is not None
        assert proxy.running.sidecar.in_hand == 1
        proxy.begin_stop()
        go_on.set()
        assert reply.result().json() == {"waited": True}
    assert proxy.finished()


def test_nobody_moves_an_id_by_quoting_it(proxy: SidecarThread, two: tuple[Keeper, Keeper]) -> None:
    """A file may hold any id; its content is no word of the provider's."""
    client = client_of(proxy)
    mine = client.responses.create(model="m", input="x").id
    here, other = two if mine.startswith("resp-a") else two[::-1]
    other.kept["file-evil"] = b""
    other.answer = lambda *_: (200, {"id": mine})  # type: ignore[method-assign]
    for path in ("/v1/files/file-evil", "/v1/files/file-evil/content"):
        for _ in range(2):
            call(proxy.port, path, method="GET", body=None)

    turn = client.responses.create(model="m", input="x", previous_response_id=mine)
    assert turn.id.startswith(f"resp-{here.name}")


def test_an_id_that_its_holder_has_lost_is_asked_for_everywhere_the_next_time(
    proxy: SidecarThread, two: tuple[Keeper, Keeper]
) -> None:
    client = client_of(proxy)
    turn = client.responses.create(model="m", input="x")
    here, other = two if turn.id.startswith("resp-a") else two[::-1]
    other.kept[turn.id] = here.kept.pop(turn.id)

    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(turn.id)
    assert client.responses.retrieve(turn.id).id == turn.id


def test_an_upstream_that_a_reload_removes_holds_nothing(
    two: tuple[Keeper, Keeper], tmp_path: Path
) -> None:
    both, alone = (
        in_front_of_two(each).replace("[admin]", "[admin]\n" + WITH_TOKEN)
        for each in (two, two[1:])
    )
    file = FromFile(tmp_path / "penstock.toml", both)
    try:
        client = client_of(file.thread)
        made = client.files.create(file=("a", b"x"), purpose="user_data")
        two[1].kept[made.id] = b""
        file.write(alone)
        assert file.reload()[0] == 200
        ask: list[openai.types.responses.ResponseInputItemParam] = [
            {"role": "user", "content": [{"type": "input_file", "file_id": made.id}]}
        ]
        turn = client.responses.create(model="m", input=ask)
    finally:
        file.thread.stop()

    assert made.id.startswith("file-a")
    assert turn.id.startswith("resp-b")


def test_an_id_is_forgotten_after_its_time_and_beyond_the_bound(
    two: tuple[Keeper, Keeper],
) -> None:
    toml = in_front_of_two(two).replace("[server]", "[server]\nids_kept = 2")
    with sidecar(toml) as proxy:
        client = client_of(proxy)
        for _ in range(5):
            client.responses.create(model="m", input="x")
        assert "penstock_ids_kept 2.0" in proxy.metrics()


@pytest.mark.parametrize("path", ["/v1/fine_tuning/jobs", "/v1/fine_tuning/jobs/x/cancel"])
def test_further_paths_are_relayed_where_the_configuration_says_so(
    two: tuple[Keeper, Keeper], path: str
) -> None:
    with sidecar(in_front_of_two(two)) as proxy:
        assert call(proxy.port, path, method="GET", body=None).status == 404
    with sidecar(in_front_of_two(two, 'relay_others = ["/fine_tuning/*"]')) as proxy:
        assert call(proxy.port, path, method="GET", body=None).json()["by"] == "a"
        assert call(proxy.port, "/v1/evals", method="GET", body=None).status == 404


def test_callers_with_their_own_keys_reach_every_path_but_the_administration(
    two: tuple[Keeper, Keeper],
) -> None:
    toml = in_front_of_two(two).replace('auth = "none"', 'auth = "caller"')
    key = {"authorization": "Bearer k"}
    with sidecar(toml) as proxy:
        asked = call(proxy.port, "/v1/evals?limit=2", method="GET", body=None, headers=key)
        assert asked.json()["by"] == "a"
        assert call(proxy.port, "/v1/evals", method="GET", body=None).status == 401
        for path in (
            "/v1/organization/admin_api_keys",
            "/v1/organizations/users",
            "/v1/organ%69zation/users",
            "/v1/Organization/users",
            "/v1/chat%2Fcompletions",
            "/v1/files/..%2f..%2fadmin",
            "/v1/%2e%2e/admin",
            "/v1/x/../../admin",
            "/v1//organization//users",
            "/v1/a%252e%252e%5cb",
            "/metrics",
        ):
            refused = call(proxy.port, path, method="GET", body=None, headers=key)
            assert refused.status == 404, path
    assert two[0].targets == ["GET /v1/evals?limit=2"]
    assert two[1].asked == []
