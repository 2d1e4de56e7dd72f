"""A language model behind an endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from expander_sae.errors import UserError

_TIMEOUT = 120
_TRIES = 4
_BUSY = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class ChatEndpoint:
    """POST `url`/chat/completions with this `model`; `key` names the environment variable of the key.

    The key itself is read when a question is asked, and written nowhere.
    """

    url: str
    model: str
    key: str | None = None

    def ask(self, question: str, tokens: int = 16, wait: float = 2.0) -> str:
        """The answer to one question, at temperature 0, of at most so many tokens.

        A busy endpoint is asked again, after `wait` seconds and then twice as many each time.

        Raises:
            UserError: an endpoint that is not there, refuses, or answers in another form.
        """
        asked = {"model": self.model, "temperature": 0, "max_tokens": tokens,
                 "messages": [{"role": "user", "content": question}]}  # fmt: skip
        for left in reversed(range(_TRIES)):
            try:
                return self._answer(json.dumps(asked).encode())
            except urllib.error.HTTPError as error:
                if error.code not in _BUSY or not left:
                    said = error.read(200).decode("utf-8", "replace").strip()
                    raise UserError(
                        f"{self._where}: answered {error.code} ({said or error.reason})"
                    ) from None
            except (OSError, http.client.HTTPException) as error:
                if not left:
                    reason = getattr(error, "reason", error)
                    raise UserError(f"{self._where}: found no answer ({reason})") from None
            time.sleep(wait)
            wait *= 2
        raise AssertionError("the last try returns or raises")

    @property
    def _where(self) -> str:
        return f"evaluation.judge.url {self.url}"

    def _answer(self, body: bytes) -> str:
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            if not (key := os.environ.get(self.key, "").strip()):
                raise UserError(f"evaluation.judge.key: found no environment variable {self.key}")
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", body, headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answered:
            text = answered.read()
        try:
            content = json.loads(text)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            content = None
        if not isinstance(content, str):
            raise UserError(
                f"{self._where}: found {text[:200].decode('utf-8', 'replace')!r}, expected a chat completion "
                "with a text at choices[0].message.content"
            )
        return content
