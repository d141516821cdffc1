"""The model list: llama-swap's reference section 3.5."""

from typing import Any

import orjson

from llmswap.config.settings import Capabilities
from tests.proxy.beds import beds
from tests.proxy.front import Front, ask, front, loaded, model


async def listed(served: Front, path: str = "/v1/models") -> dict[str, dict[str, Any]]:
    answer = await ask(served, "GET", path)
    assert answer.status == 200
    data = orjson.loads(answer.body)
    assert data["object"] == "list"
    return {record["id"]: record for record in data["data"]}


async def test_models_are_listed_by_byte_order_with_the_fields_clients_know() -> None:
    async with front(
        loaded(model("b"), model("a10"), model("a9"), model("B", name=" Big ", description=" one "))
    ) as served:
        records = await listed(served)
        assert list(records) == ["B", "a10", "a9", "b"]
        created = records["b"].pop("created")
        assert isinstance(created, int)
        assert records["b"] == {
            "id": "b",
            "object": "model",
            "owned_by": "llama-swap",
            "status": {"value": "unloaded"},
            "meta": {"llamaswap": {"type": "model"}},
        }
        assert (records["B"]["name"], records["B"]["description"]) == ("Big", "one")
        assert await listed(served, "/models") == await listed(served)


async def test_a_model_counts_as_loaded_from_its_start_to_the_end_of_its_stop() -> None:
    async with front(loaded(model("m1"), model("m2"))) as served:
        served.starts = served.stops = False
        served.load("m1")
        assert served.state("m1") == "starting"
        records = await listed(served)
        assert [record["status"]["value"] for record in records.values()] == ["loaded", "unloaded"]


async def test_unlisted_models_are_hidden_with_their_aliases_but_can_be_asked_for() -> None:
    config = loaded(
        model("m1", aliases=("z", "a")), model("m2", unlisted=True, aliases=("hidden",)), include_aliases_in_list=True
    )
    async with front(config) as served:
        records = await listed(served)
        assert list(records) == ["a", "m1", "z"]
        assert records["a"]["meta"] == {"llamaswap": {"type": "alias", "modelID": "m1"}}
        assert records["m1"]["meta"] == {"llamaswap": {"type": "model", "aliases": ["z", "a"]}}
        assert (await ask(served, "GET", "/v1/models/m2")).status == 200


async def test_aliases_are_listed_only_on_demand() -> None:
    async with front(loaded(model("m1", aliases=("z",)))) as served:
        assert list(await listed(served)) == ["m1"]


async def test_capabilities_are_spelt_out_and_hide_metadata_of_the_same_name() -> None:
    metadata = {"architecture": "mine", "context_length": 1, "note": "kept", "type": "overridden"}
    can = Capabilities(inputs=("text", "image"), outputs=("text",), tools=True, context=8192)
    async with front(
        loaded(model("m1", metadata=metadata, capabilities=can), model("m2", metadata=metadata))
    ) as served:
        records = await listed(served)
        one = records["m1"]
        assert one["architecture"] == {
            "input_modalities": ["text", "image"],
            "output_modalities": ["text"],
            "modality": "text+image->text",
        }
        assert one["capabilities"] == {"vision": True, "function_calling": True}
        assert one["supported_parameters"] == ["tools", "tool_choice"]
        assert one["context_length"] == 8192
        assert one["meta"] == {"llamaswap": {"note": "kept", "type": "model"}, "n_ctx": 8192}
        two = records["m2"]["meta"]
        assert two == {"llamaswap": metadata | {"type": "model"}}


async def test_one_model_can_be_asked_for_by_id_with_slashes_and_by_alias() -> None:
    async with front() as served:
        for path, name in (
            ("author/model", "author/model"),
            ("author%2Fmodel", "author/model"),
            ("alias-1", "alias-1"),
        ):
            answer = await ask(served, "GET", f"/v1/models/{path}")
            assert answer.status == 200, path
            assert orjson.loads(answer.body)["id"] == name
        missing = await ask(served, "GET", "/v1/models/nope")
        assert missing.status == 404
        assert b"model_not_found" in missing.body


async def test_a_model_that_sleeps_is_said_to() -> None:
    async with beds() as made:
        assert (await listed(made.served))["m1"]["status"] == {"value": "loaded"}
        await made.order("sleep")
        for path in ("m1", "m1-alias"):
            answer = await ask(made.served, "GET", f"/v1/models/{path}")
            assert orjson.loads(answer.body)["status"] == {"value": "sleeping"}
        assert (await listed(made.served))["m1"]["status"] == {"value": "sleeping"}
