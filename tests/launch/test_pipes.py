"""What a step answers through a file, whole lines only."""

import json
import threading
from pathlib import Path
from typing import Any

from platform_assets.launch.pipes import KeptFileReader


class MessageHandler:
    """Stands for Dagster's handler of messages."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def handle_message(self, message: dict[str, Any]) -> None:
        self.messages.append(message)


def test_a_line_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    messages, handler = [{"method": "log", "number": number} for number in range(3)], MessageHandler()
    text = "".join(json.dumps(message) + "\n" for message in messages)
    with (
        KeptFileReader(tmp_path / "messages").read_messages(handler) as params,
        Path(params["path"]).open("a", encoding="utf-8") as file,
    ):
        for half in (text[:20], text[20:50], text[50:]):
            file.write(half)
            file.flush()
            threading.Event().wait(3 * KeptFileReader.read_every_s)
    assert handler.messages == messages
    assert (tmp_path / "messages").read_text(encoding="utf-8") == text, "the file stays for the next reader"
