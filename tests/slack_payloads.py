"""Payloads that a Slack webhook takes, and payloads that it refuses, each at the edge of a limit."""

from __future__ import annotations

from typing import Any


def plain(text: str) -> dict[str, str]:
    return {"type": "plain_text", "text": text}


def mrkdwn(text: str) -> dict[str, str]:
    return {"type": "mrkdwn", "text": text}


def button(**changes: Any) -> dict[str, Any]:
    return {"type": "button", "text": plain("Log"), "url": "https://airflow.example.com/dags", **changes}


def blocks(*given: Any) -> dict[str, Any]:
    return {"blocks": list(given)}


def header(text: str) -> dict[str, Any]:
    return {"type": "header", "text": plain(text)}


DIVIDER = {"type": "divider"}

TAKEN: list[Any] = [
    {"text": "x"},
    blocks(*[DIVIDER] * 50),
    blocks(header("x" * 150)),
    blocks({"type": "section", "text": mrkdwn("x" * 3000), "block_id": "b" * 255}),
    blocks({"type": "section", "fields": [mrkdwn("x" * 2000)] * 10}),
    blocks({"type": "context", "elements": [mrkdwn("x")] * 10}),
    blocks({"type": "actions", "elements": [button()] * 25}),
    blocks({"type": "actions", "elements": [button(text=plain("x" * 75), value="v" * 2000, style="danger")]}),
    blocks({"type": "actions", "elements": [button(url="http://h/" + "x" * 2991)]}),
]

REFUSED: list[tuple[Any, str]] = [
    ([1], "invalid_payload"),
    ({"text": 1}, "invalid_payload"),
    ({}, "no_text"),
    ({"text": "", "blocks": []}, "no_text"),
    (blocks(*[DIVIDER] * 51), "invalid_blocks"),
    ({"blocks": "x"}, "invalid_blocks"),
    (blocks("x"), "invalid_blocks"),
    (blocks({"type": "poem"}), "invalid_blocks"),
    (blocks(header("x" * 151)), "invalid_blocks"),
    (blocks(header("")), "invalid_blocks"),
    (blocks({"type": "header", "text": mrkdwn("x")}), "invalid_blocks"),
    (blocks({"type": "section"}), "invalid_blocks"),
    (blocks({"type": "section", "text": "x"}), "invalid_blocks"),
    (blocks({"type": "section", "text": mrkdwn("x" * 3001)}), "invalid_blocks"),
    (blocks({"type": "section", "text": mrkdwn("x") | {"emoji": True}}), "invalid_blocks"),
    (blocks({"type": "section", "fields": []}), "invalid_blocks"),
    (blocks({"type": "section", "fields": [mrkdwn("x")] * 11}), "invalid_blocks"),
    (blocks({"type": "section", "fields": [mrkdwn("x" * 2001)]}), "invalid_blocks"),
    (blocks({"type": "section", "text": mrkdwn("x"), "colour": "red"}), "invalid_blocks"),
    (blocks({"type": "context", "elements": [mrkdwn("x")] * 11}), "invalid_blocks"),
    (blocks({"type": "actions", "elements": [button()] * 26}), "invalid_blocks"),
    (blocks({"type": "actions", "elements": [mrkdwn("x")]}), "invalid_blocks"),
    (blocks({"type": "actions", "elements": [button(text=plain("x" * 76))]}), "invalid_blocks"),
    (blocks({"type": "actions", "elements": [button(text=mrkdwn("x"))]}), "invalid_blocks"),
    (blocks({"type": "actions", "elements": [button(url="http://h/" + "x" * 2992)]}), "invalid_blocks"),
    (blocks({"type": "actions", "elements": [button(url="/dags")]}), "invalid_blocks"),
    (blocks({"type": "actions", "elements": [button(url="javascript:alert(1)")]}), "invalid_blocks"),
    (blocks({"type": "actions", "elements": [button(value="v" * 2001)]}), "invalid_blocks"),
    (blocks({"type": "actions", "elements": [button(style="loud")]}), "invalid_blocks"),
    (blocks({"type": "actions", "elements": [button(action_id="a"), button(action_id="a")]}), "invalid_blocks"),
    (blocks(DIVIDER | {"block_id": "b" * 256}), "invalid_blocks"),
    (blocks(DIVIDER | {"block_id": "b"}, DIVIDER | {"block_id": "b"}), "invalid_blocks"),
]
