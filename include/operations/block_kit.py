"""What a Slack webhook takes for a message: the blocks that Slack documents in its Block Kit, and their limits.

https://docs.slack.dev/reference/block-kit/blocks and /reference/methods/chat.postMessage
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

M = TypeVar("M", bound=BaseModel)


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PlainText(_Form):
    """Text that is shown as it is."""

    type: Literal["plain_text"]
    text: str = Field(min_length=1, max_length=3000)
    emoji: bool = True


class Mrkdwn(_Form):
    """Text in Slack's own markup."""

    type: Literal["mrkdwn"]
    text: str = Field(min_length=1, max_length=3000)
    verbatim: bool = False


Text = Annotated[PlainText | Mrkdwn, Field(discriminator="type")]


def _at_most(characters: int) -> AfterValidator:
    def check(text: PlainText | Mrkdwn) -> PlainText | Mrkdwn:
        if len(text.text) > characters:
            raise ValueError(f"{len(text.text)} characters, Slack takes {characters}")
        return text

    return AfterValidator(check)


def _once(whole: M, name: str, ids: Sequence[str | None]) -> M:
    given = [one for one in ids if one is not None]
    if len(given) != len(set(given)):
        raise ValueError(f"{name}: one stands twice")
    return whole


class Button(_Form):
    """A button, which leads to `url`."""

    type: Literal["button"]
    text: Annotated[PlainText, _at_most(75)]
    url: str | None = Field(default=None, pattern=r"^https?://[^/\s]", max_length=3000)
    value: str | None = Field(default=None, min_length=1, max_length=2000)
    action_id: str | None = Field(default=None, min_length=1, max_length=255)
    style: Literal["primary", "danger"] | None = None
    accessibility_label: str | None = Field(default=None, min_length=1, max_length=75)


class _Block(_Form):
    block_id: str | None = Field(default=None, min_length=1, max_length=255)


class Header(_Block):
    """A headline."""

    type: Literal["header"]
    text: Annotated[PlainText, _at_most(150)]


class Section(_Block):
    """Text, or fields in two columns, or both; beside it a button."""

    type: Literal["section"]
    text: Text | None = None
    fields: list[Annotated[Text, _at_most(2000)]] | None = Field(default=None, min_length=1, max_length=10)
    accessory: Button | None = None
    expand: bool = False

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.text is None and self.fields is None:
            raise ValueError("a section needs text or fields")
        return self


class Divider(_Block):
    """A line."""

    type: Literal["divider"]


class Context(_Block):
    """Small print."""

    type: Literal["context"]
    elements: list[Text] = Field(min_length=1, max_length=10)


class Actions(_Block):
    """Buttons in a row."""

    type: Literal["actions"]
    elements: list[Button] = Field(min_length=1, max_length=25)

    @model_validator(mode="after")
    def _action_ids_stand_once(self) -> Self:
        return _once(self, "action_id", [button.action_id for button in self.elements])


Block = Annotated[Header | Section | Divider | Context | Actions, Field(discriminator="type")]


class SlackMessage(BaseModel):
    """A message. With blocks, `text` is what notifications show."""

    text: str = Field(default="", max_length=40_000)
    blocks: list[Block] = Field(default_factory=list, max_length=50)

    @model_validator(mode="after")
    def _block_ids_stand_once(self) -> Self:
        return _once(self, "block_id", [block.block_id for block in self.blocks])


def problems(payload: Any) -> list[str]:
    """What Slack would refuse of `payload`, each as `place: reason`; empty where it takes it.

    A text is asked for beside blocks too: without one a notification shows nothing.
    """
    try:
        message = SlackMessage.model_validate(payload)
    except ValidationError as error:
        return [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False)]
    return [] if message.text else ["text: there is none"]


def refusal(payload: Any) -> str | None:
    """The code with which Slack refuses the payload, None where it takes it."""
    if not isinstance(payload, dict):
        return "invalid_payload"
    if not payload.get("text") and not payload.get("blocks"):
        return "no_text"
    try:
        SlackMessage.model_validate(payload)
    except ValidationError as error:
        return "invalid_payload" if any(one["loc"] == ("text",) for one in error.errors()) else "invalid_blocks"
    return None
