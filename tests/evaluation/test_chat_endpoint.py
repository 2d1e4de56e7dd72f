"""Questions to an endpoint on this machine."""

from __future__ import annotations

import pytest

from expander_sae.errors import UserError
from expander_sae.evaluation.chat_endpoint import ChatEndpoint
from tests.evaluation.stand_in_judge import completion, serving


def test_a_question_is_asked_as_the_form_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", " secret ")
    with serving(lambda question: completion(f"{question}!")) as server:
        assert ChatEndpoint(server.url + "/", "small", "JUDGE_KEY").ask("which?", tokens=5) == "which?!"
        assert ChatEndpoint(server.url, "small").ask("ⅷ “é”") == "ⅷ “é”!"
    first, second = server.requests
    assert (first["path"], first["model"], first["temperature"], first["max_tokens"]) == (
        "/v1/chat/completions", "small", 0, 5,
    )  # fmt: skip
    assert (first["key"], second["key"]) == ("Bearer secret", None)


def test_a_key_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(UserError, match="judge\\.key: found no environment variable JUDGE_KEY"):
        ChatEndpoint("http://127.0.0.1:9/v1", "small", "JUDGE_KEY").ask("which?")


def test_a_busy_endpoint_is_asked_again_and_a_refusal_is_told() -> None:
    answers = iter([(429, ""), (503, ""), completion("2")])
    with serving(lambda question: next(answers)) as server:
        assert ChatEndpoint(server.url, "small").ask("which?", wait=0) == "2"
    with (
        serving(lambda question: (401, "no such key")) as server,
        pytest.raises(UserError, match=r"answered 401 \(no such key\)"),
    ):
        ChatEndpoint(server.url, "small").ask("which?", wait=0)
    assert len(server.requests) == 1
    with serving(lambda question: (500, "down")) as server, pytest.raises(UserError, match="answered 500"):
        ChatEndpoint(server.url, "small").ask("which?", wait=0)
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    "body", ["", "{}", '{"choices": []}', '{"choices": [{"message": {"content": null}}]}', "[1]"]
)
def test_an_answer_of_another_form_is_refused(body: str) -> None:
    with (
        serving(lambda question: (200, body)) as server,
        pytest.raises(UserError, match=r"judge\.url http://127.*expected a chat completion"),
    ):
        ChatEndpoint(server.url, "small").ask("which?")


def test_an_endpoint_that_is_not_there_is_named() -> None:
    with serving(lambda question: completion("1")) as server:
        pass
    with pytest.raises(UserError, match=r"judge\.url http://127.*found no answer"):
        ChatEndpoint(server.url, "small").ask("which?", wait=0)
