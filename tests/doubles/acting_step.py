"""Be a step in a pod that does what its input says, one thing after another; it needs dagster_pipes and boto3 alone.

The input `acts` has one
line per try, of words separated by semicolons:

    say COUNT SECONDS     print numbered lines, so many seconds apart
    sleep SECONDS
    hold                  print "ready", and wait until SIGTERM
    wait NAME             print "ready", and wait for an object of this name in the test's folder
    put NAME              create an object of this name in the test's folder
    report                report the result
    exit CODE             end without closing the session
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from dagster_pipes import PipesContext, PipesS3ContextLoader, PipesS3MessageWriter, open_dagster_pipes

SIGNALS: list[int] = []


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, _: SIGNALS.append(number))
    client = boto3.client("s3", config=Config(retries={"mode": "standard", "max_attempts": 8}))
    with open_dagster_pipes(
        context_loader=PipesS3ContextLoader(client=client),
        message_writer=PipesS3MessageWriter(client=client, interval=1),
    ) as pipes:
        bucket, _, folder = pipes.extras["folder"].removeprefix("s3://").partition("/")
        store = _Folder(client, bucket, folder)
        store.put(f"tries/{pipes.extras['attempt']['id']}")
        acts = pipes.extras["acts"]
        tries = client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/tries/")["KeyCount"]
        for words in acts[min(tries, len(acts)) - 1].split(";"):
            verb, *arguments = words.split()
            act(verb, arguments, pipes, store)


@dataclass
class _Folder:
    client: Any
    bucket: str
    folder: str

    def has(self, name: str) -> bool:
        return self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.folder}/{name}")["KeyCount"] > 0

    def put(self, name: str) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"{self.folder}/{name}", Body=b"")


def act(verb: str, arguments: list[str], pipes: PipesContext, store: _Folder) -> None:
    if verb == "say":
        for number in range(int(arguments[0])):
            say(f"line {number}")
            time.sleep(float(arguments[1]))
    elif verb == "sleep":
        time.sleep(float(arguments[0]))
    elif verb == "hold":
        say("ready")
        while not SIGNALS:
            time.sleep(0.05)
    elif verb == "wait":
        say("ready")
        while not store.has(arguments[0]):
            time.sleep(0.5)
    elif verb == "put":
        store.put(arguments[0])
    elif verb == "report":
        pipes.report_custom_message({"kind": "result", "value": 1})
    elif verb == "exit":
        os._exit(int(arguments[0]))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
