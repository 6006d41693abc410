"""The page that shows what the demo's Slack webhook was sent, as Slack would. No scripts, nothing from outside."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from typing import Any

from include.operations.block_kit import (
    Actions,
    Button,
    Context,
    Divider,
    Header,
    Mrkdwn,
    PlainText,
    Section,
    SlackMessage,
)

SECURITY = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'", "Cache-Control": "no-store"}
"""Headers of the page: its own style, and not even by mistake anything else."""

STYLE = """
* { box-sizing: border-box }
body { margin: 0; background: #fff; color: #1d1c1d; font: 15px/1.47 Lato, "Helvetica Neue", Arial, sans-serif }
header { position: sticky; top: 0; padding: 12px 20px; background: #fff; border-bottom: 1px solid #ddd; z-index: 1 }
header b { font-size: 18px }
header span, time, .context, .none { color: #616061 }
article { display: flex; gap: 10px; max-width: 720px; padding: 10px 20px }
article:hover { background: #f8f8f8 }
.icon { flex: none; width: 36px; height: 36px; border-radius: 6px; background: #1d5c8a; color: #fff; font-weight: 900;
  line-height: 36px; text-align: center }
.message { flex: 1; min-width: 0; overflow-wrap: anywhere }
.app { padding: 0 4px; border-radius: 2px; background: #e8e8e8; color: #616061; font-size: 10px; font-weight: 700 }
time, .context { font-size: 12px }
h2 { margin: 8px 0 4px; font-size: 18px; line-height: 1.33 }
.section { display: flex; gap: 16px; justify-content: space-between; margin: 6px 0 }
.fields { display: grid; grid-template-columns: 1fr 1fr; gap: 8px 16px; width: 100% }
.context { display: flex; flex-wrap: wrap; gap: 4px 8px; margin: 6px 0; font-size: 13px }
.actions { display: flex; flex-wrap: wrap; gap: 8px; margin: 8px 0 }
.button { padding: 4px 12px; border: 1px solid #bbb; border-radius: 4px; color: #1d1c1d; font-size: 13px;
  font-weight: 700; text-decoration: none; white-space: nowrap }
.button.primary { border-color: #007a5a; background: #007a5a; color: #fff }
.button.danger { border-color: #e01e5a; background: #e01e5a; color: #fff }
hr { margin: 12px 0; border: 0; border-top: 1px solid #ddd }
a { color: #1264a3 }
code, pre { border: 1px solid #ddd; border-radius: 3px; background: #f6f6f6; font: 12px/1.5 Menlo, Consolas, monospace }
code { padding: 2px 3px; color: #c01343 }
pre { margin: 4px 0; padding: 8px; white-space: pre-wrap }
.none { padding: 40px 20px }
"""

_MARKUP = re.compile(
    r"```\n?(?P<block>.+?)```"
    r"|`(?P<code>[^`\n]+)`"
    r"|<(?P<target>[^<>|\n]+)(?:\|(?P<label>[^<>\n]*))?>"
    r"|(?<!\w)\*(?P<b>\S|\S[^*\n]*\S)\*(?!\w)"
    r"|(?<!\w)_(?P<i>\S|\S[^_\n]*\S)_(?!\w)"
    r"|(?<!\w)~(?P<s>\S|\S[^~\n]*\S)~(?!\w)",
    re.DOTALL,
)


def page(kept: Iterable[tuple[int, dict[str, Any]]]) -> str:
    """The page in HTML. `kept`: milliseconds since 1970 and a message that was taken, oldest first."""
    articles = [_article(ms, SlackMessage.model_validate(message)) for ms, message in kept]
    messages = f"{len(articles)} message{'' if len(articles) == 1 else 's'}"
    body = "\n".join(articles) or '<p class="none">No message yet.</p>'
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Alerts ({len(articles)})</title>\n<style>{STYLE}</style>\n"
        f"<header><b># alerts</b> <span>{messages}, the newest last</span></header>\n{body}\n</html>\n"
    )


def _article(ms: int, message: SlackMessage) -> str:
    at = datetime.fromtimestamp(ms / 1000, UTC)
    shown = "\n".join(map(_block, message.blocks)) or f'<div class="section"><div>{mrkdwn(message.text)}</div></div>'
    return (
        '<article><div class="icon">S</div><div class="message"><b>Sluice</b> <span class="app">APP</span> '
        f'<time datetime="{at:%Y-%m-%dT%H:%M:%SZ}">{at:%d %b %H:%M} UTC</time>'
        f"\n{shown}\n</div></article>"
    )


def _block(block: Header | Section | Divider | Context | Actions) -> str:
    match block:
        case Header():
            return f"<h2>{_text(block.text)}</h2>"
        case Section():
            text = f"<div>{_text(block.text)}</div>" if block.text else ""
            fields = "".join(f"<div>{_text(field)}</div>" for field in block.fields or ())
            both = f'{text}<div class="fields">{fields}</div>' if fields else text
            return f'<div class="section">{both}{_button(block.accessory) if block.accessory else ""}</div>'
        case Divider():
            return "<hr>"
        case Context():
            return f'<div class="context">{"".join(f"<span>{_text(one)}</span>" for one in block.elements)}</div>'
        case Actions():
            return f'<div class="actions">{"".join(map(_button, block.elements))}</div>'


def _button(button: Button) -> str:
    name = f"button {button.style or ''}".strip()
    if button.url is None:
        return f'<span class="{name}">{_text(button.text)}</span>'
    return f'<a class="{name}" href="{escape(button.url)}" rel="noreferrer">{_text(button.text)}</a>'


def _text(text: PlainText | Mrkdwn) -> str:
    return mrkdwn(text.text) if isinstance(text, Mrkdwn) else _escaped(text.text)


def mrkdwn(text: str) -> str:
    """Slack's markup as HTML: bold, italic, struck, code, links to http and https. Everything else is escaped."""
    html, end = [], 0
    for found in _MARKUP.finditer(text):
        html += [_escaped(text[end : found.start()]), _markup(found)]
        end = found.end()
    return "".join([*html, _escaped(text[end:])])


def _markup(found: re.Match[str]) -> str:
    kind, value = next((name, value) for name, value in found.groupdict().items() if value is not None)
    match kind:
        case "block":
            return f"<pre>{escape(_entities(value))}</pre>"
        case "code":
            return f"<code>{escape(_entities(value))}</code>"
        case "target":
            label = _escaped(found["label"] or value)
            url = escape(_entities(value))
            return f'<a href="{url}" rel="noreferrer">{label}</a>' if re.match(r"https?://", value) else label
        case tag:
            return f"<{tag}>{mrkdwn(value)}</{tag}>"


def _entities(text: str) -> str:
    """The text without the three entities that Slack's markup has."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _escaped(text: str) -> str:
    return _broken(escape(_entities(text)))


def _broken(html: str) -> str:
    return html.replace("\n", "<br>")
